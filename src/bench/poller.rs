//! Which of many sockets can be read or written, and when it is time: epoll and a timer, for one thread.
//!
//! Servers and clients of this project block; the load side alone does not, since a thread for each simulated client
//! would measure the threads. Linux only.

/// What [`Poller::wait`] says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// The key that it was added with.
    pub(super) key: usize,
    /// There is something to read, or the end.
    pub(super) readable: bool,
    /// There is room to write.
    pub(super) writable: bool,
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Poller;
#[cfg(target_os = "linux")]
pub(super) use linux::Poller;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    use super::Ready;

    /// How many sockets one [`wait`](Poller::wait) tells of.
    const EVENTS_MAX: usize = 1024;
    /// The key of the timer.
    const TIMER: u64 = u64::MAX;

    /// Many sockets and a timer.
    #[derive(Debug)]
    pub(in crate::bench) struct Poller {
        epoll: OwnedFd,
        timer: OwnedFd,
    }

    impl Poller {
        /// Nothing is watched yet.
        pub(in crate::bench) fn new() -> io::Result<Self> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            // Waiting itself counts in milliseconds, which is too coarse for a rate.
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
            Ok(Self { epoll, timer })
        }

        /// Watches `socket` for something to read.
        pub(in crate::bench) fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
            Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key as u64), EventFlags::IN)?)
        }

        /// Watches `socket` for room to write, too, or no longer.
        pub(in crate::bench) fn watch_writable(
            &self,
            socket: impl AsFd,
            key: usize,
            watch: bool,
        ) -> io::Result<()> {
            let flags = if watch { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(key as u64), flags)?)
        }

        /// From now on [`wait`](Self::wait) returns at least once in every `interval`.
        pub(in crate::bench) fn tick(&self, interval: Duration) -> io::Result<()> {
            let spec = timespec(interval);
            let spec = Itimerspec { it_interval: spec, it_value: spec };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
            Ok(())
        }

        /// Puts into `ready` what is ready; waits for that, or a tick, for `limit` at most.
        pub(in crate::bench) fn wait(
            &self,
            limit: Duration,
            ready: &mut Vec<Ready>,
        ) -> io::Result<()> {
            ready.clear();
            let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
            let events = match epoll::wait(&self.epoll, &mut events, Some(&timespec(limit))) {
                Ok((events, _)) => events,
                // A signal; ctrl-c is heard elsewhere.
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for event in events {
                let (data, flags) = (event.data, event.flags);
                if data.u64() == TIMER {
                    // How often it ticked does not matter: who waits looks at the clock.
                    let _ = rustix::io::read(&self.timer, &mut [0_u8; 8][..]);
                    continue;
                }
                let over = EventFlags::HUP | EventFlags::ERR;
                ready.push(Ready {
                    key: usize::try_from(data.u64()).unwrap_or(usize::MAX),
                    readable: flags.intersects(EventFlags::IN | over),
                    writable: flags.contains(EventFlags::OUT),
                });
            }
            Ok(())
        }
    }

    fn timespec(time: Duration) -> Timespec {
        Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) }
    }
}

/// Elsewhere there is neither epoll nor `/proc`, so nothing is measured.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;
    use std::time::Duration;

    use super::Ready;

    /// What this system does not have.
    #[derive(Debug)]
    pub(in crate::bench) struct Poller;

    impl Poller {
        /// Fails.
        pub(in crate::bench) fn new() -> io::Result<Self> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "measuring needs Linux"))
        }

        /// Never called.
        pub(in crate::bench) fn add<T>(&self, _: T, _: usize) -> io::Result<()> {
            Ok(())
        }

        /// Never called.
        pub(in crate::bench) fn watch_writable<T>(
            &self,
            _: T,
            _: usize,
            _: bool,
        ) -> io::Result<()> {
            Ok(())
        }

        /// Never called.
        pub(in crate::bench) fn tick(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }

        /// Never called.
        pub(in crate::bench) fn wait(&self, _: Duration, _: &mut Vec<Ready>) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "it waits in real time")]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_can_be_read_and_written_is_told_by_its_key() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let (poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        poller.add(&here, 7).unwrap();
        poller.wait(Duration::ZERO, &mut ready).unwrap();
        assert_eq!(ready, []);
        there.write_all(b"x").unwrap();
        poller.wait(Duration::from_secs(10), &mut ready).unwrap();
        assert_eq!(ready, [Ready { key: 7, readable: true, writable: false }]);
        poller.watch_writable(&here, 7, true).unwrap();
        poller.wait(Duration::from_secs(10), &mut ready).unwrap();
        assert_eq!(ready, [Ready { key: 7, readable: true, writable: true }]);
    }

    #[test]
    fn a_tick_ends_a_wait() {
        let (poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        poller.tick(Duration::from_micros(300)).unwrap();
        let began = Instant::now();
        for _ in 0..3 {
            poller.wait(Duration::from_secs(60), &mut ready).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(ready, []);
    }
}
