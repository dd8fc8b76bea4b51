//! Frames of any size in one queue: nothing is lost, torn or turned around.

use super::*;
use crate::domain::Frame;
use crate::network::frames::{Blocks, Frames};

/// A frame of `bytes` bytes on the wire that tells it from its neighbours.
fn frame(number: usize, bytes: usize) -> Frame {
    vec![b'a' + (number % 26) as u8; bytes - 1].into()
}

fn block(frames: &[Frame]) -> Arc<Block> {
    let mut all = Frames::default();
    for frame in frames {
        all.push(|out| out.extend_from_slice(frame));
    }
    Arc::clone(Blocks::of(all).framed(Framing::Lines))
}

/// A queue that is told everything twice: in pieces, and as the plain frames that are to come out.
#[derive(Default)]
struct Checked {
    queue: SendQueue,
    frames: VecDeque<Vec<u8>>,
    /// How much of the first frame has left.
    head: usize,
}

impl Checked {
    fn push(&mut self, frame: &Frame) {
        self.queue.push(frame, Framing::Lines);
        self.expect(frame);
    }

    fn push_block(&mut self, frames: &[Frame]) {
        self.queue.push_block(&block(frames));
        for frame in frames {
            self.expect(frame);
        }
    }

    fn expect(&mut self, frame: &Frame) {
        self.frames.push_back([frame, &b"\n"[..]].concat());
    }

    /// Takes `count` bytes off what is expected.
    fn drop_expected(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let rest = &self.frames[0][self.head..];
            let taken = rest.len().min(count - bytes.len());
            bytes.extend(&rest[..taken]);
            self.head += taken;
            if self.head == self.frames[0].len() {
                self.frames.pop_front();
                self.head = 0;
            }
        }
        bytes
    }

    /// Sends at most `count` bytes, as a socket does that takes no more.
    fn send(&mut self, count: usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.queue.slices(&mut slices);
        let offered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(offered.is_empty(), self.queue.bytes() == 0);
        let count = count.min(offered.len());
        self.queue.advance(count);
        assert_eq!(offered[..count], self.drop_expected(count));
        self.check();
    }

    fn take(&mut self, bytes_max: usize) {
        let mut chunk = Vec::new();
        self.queue.take_frames(&mut chunk, bytes_max);
        let first = self.frames.front().map_or(0, |frame| frame.len() - self.head);
        assert!(chunk.len() <= bytes_max.max(first));
        assert_eq!(chunk, self.drop_expected(chunk.len()));
        assert_eq!(self.head, 0, "whole frames only");
        let next = self.frames.front().map_or(usize::MAX, Vec::len);
        assert!(chunk.len().saturating_add(next) > bytes_max, "one more would have fitted");
        self.check();
    }

    fn cut(&mut self) {
        self.queue.cut();
        self.frames.truncate(usize::from(self.head > 0));
        self.check();
    }

    fn check(&self) {
        let expected: usize = self.frames.iter().map(Vec::len).sum();
        assert_eq!(self.queue.bytes(), expected - self.head);
        assert_eq!(self.queue.mid_frame, self.head > 0);
    }
}

#[test]
fn what_was_partly_sent_stays_when_the_queue_is_cut() {
    let frames = [frame(0, 5), frame(1, 50), frame(2, 500)];
    for is_shared in [false, true] {
        for sent in 0..555 {
            let mut checked = Checked::default();
            if is_shared {
                checked.push_block(&frames);
            } else {
                for frame in &frames {
                    checked.push(frame);
                }
            }
            checked.send(sent);
            checked.queue.compact();
            checked.cut();
            checked.push(&frame(3, 10));
            checked.send(usize::MAX);
            assert_eq!(checked.queue.bytes(), 0);
        }
    }
}

#[test]
fn whatever_is_queued_sent_and_taken_frames_stay_whole_and_in_order() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut checked = Checked::default();
        for number in 0..200 {
            match rng.u8(..10) {
                0..4 => checked.push(&frame(number, rng.usize(1..100))),
                4..7 => {
                    let size = rng.usize(1..100);
                    let frames: Vec<_> =
                        (0..rng.usize(1..5)).map(|more| frame(number + more, size)).collect();
                    checked.push_block(&frames);
                }
                7 => checked.send(rng.usize(..400)),
                8 => checked.take(rng.usize(..400)),
                _ if rng.u8(..10) == 0 => checked.cut(),
                _ => checked.queue.compact(),
            }
        }
        while checked.queue.bytes() > 0 {
            checked.send(rng.usize(1..4000));
        }
        assert!(checked.frames.is_empty());
    }
}

#[test]
fn more_pieces_than_fit_one_call_leave_with_the_next() {
    let mut checked = Checked::default();
    for number in 0..SLICES_MAX {
        checked.push(&frame(number, 10));
        checked.push_block(&[frame(number, 20)]);
    }
    checked.send(usize::MAX);
    assert_eq!(checked.queue.bytes(), SLICES_MAX / 2 * 30);
    checked.send(usize::MAX);
    assert_eq!(checked.queue.bytes(), 0);
}

#[test]
fn a_block_is_held_once_and_let_go_when_it_was_sent() {
    let block = block(&[frame(0, 100)]);
    let mut queues: [SendQueue; 3] = Default::default();
    for queue in &mut queues {
        queue.push_block(&block);
    }
    assert_eq!(Arc::strong_count(&block), 4);
    queues[0].advance(100);
    queues[1].advance(99);
    queues[2].cut();
    assert_eq!(Arc::strong_count(&block), 2);
    assert_eq!(queues[0].capacities().0, 0, "a shared block needs no own buffer");
}

#[test]
fn an_empty_queue_keeps_a_small_buffer_and_gives_a_large_one_back() {
    let mut queue = SendQueue::default();
    queue.push(&frame(0, 1000), Framing::Lines);
    queue.advance(1000);
    assert_eq!(queue.capacities().0, 1000);
    for number in 0..100 {
        queue.push(&frame(number, 1000), Framing::Lines);
        queue.push_block(&block(&[frame(number, 10)]));
    }
    queue.advance(queue.bytes());
    assert_eq!(queue.capacities(), (0, 0));
}
