//! Plays: whole servers and their clients, one rule of the design `ring` a script (`tests/scripts/ring`), and the failures that the
//! guide tells of in the others (`tests/scripts/scenarios`).
//!
//! A script holds commands and, after `---`, what changed: leaders and rings, what clients were shown and
//! told, and, after `trace`, what servers held, wrote and sent. Lives of a server are written `n1`, `n1'`,
//! `n1''`. `UPDATE_GOLDENFILES=1 cargo test --lib plays` writes the outcomes anew: read the difference, and
//! commit it only if you can explain each line.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{Command, Context, Runner};

use crate::config::Design;
use crate::domain::content::{ClientJoin, JoinRoom, Position};
use crate::domain::{Incarnation, Message, MessageType, NodeId};
use crate::network::ConnId;
use crate::server::ServerNode;
use crate::server::election::ElectionKind;
use crate::server::server_node::NodeConfig;
use crate::server::test_cluster::{TestCluster, config};
use words::{Lives, View};

/// What can happen.
#[derive(Command)]
pub(super) enum Verb {
    /// Servers that start from now on have this design: `ring`, as at first, `sequencer` or `raft`.
    Design(String),
    /// Servers that start from now on find a leader like this: `hs`, as at first, or `bully`.
    Election(String),
    /// These servers start, with each other as `--peers`, and get the time to find a leader.
    Servers(Vec<String>),
    /// One more server starts; its `--peers` are all that were named so far.
    Start(String),
    /// The server ends without a word. What was not on its disk is lost.
    Crash(Vec<String>),
    /// A crashed server starts again with what is on its disk.
    Restart(Vec<String>),
    /// A crashed server starts again with an empty disk.
    Wipe(String),
    /// The server says goodbye and ends.
    Stop(String),
    /// What the first server sends to the others waits on the link.
    Stall(String, Vec<String>),
    /// It arrives.
    Unstall(String, Vec<String>),
    /// Nothing passes between the first server and the others, either way, new connections included.
    Cut(String, Vec<String>),
    /// Nothing is cut any more.
    Heal,
    /// From now on these disks write at once (`fast`, as all do at first) or nothing (`slow`).
    Disk {
        /// `fast` or `slow`.
        speed: String,
        /// Whose.
        ids: Vec<String>,
    },
    /// The server gets neither time nor messages.
    Sleep(String),
    /// It gets its tick, then all messages.
    Wake(String),
    /// A server with this id, but another disk and address, says HELLO to the second.
    Impostor(String, String),
    /// A client connects to a server and joins a room.
    Client {
        /// Its name in the play, and that of its session.
        who: String,
        /// Where it connects.
        id: String,
        /// What it joins.
        room: Option<String>,
        /// The user name, where it is not `who`.
        #[arg(key)]
        name: Option<String>,
    },
    /// A client sends messages with these ids, without waiting for answers.
    Say(String, Vec<String>),
    /// A client's connection is lost; it connects to this server, and resumes at its position.
    Move {
        /// Who.
        who: String,
        /// Where to.
        id: String,
        /// Whether it takes a gap rather than wait.
        #[arg(key, optional)]
        accept_gap: bool,
    },
    /// A client's connection is lost.
    HangUp(String),
    /// So many ms pass.
    Advance(u64),
    /// From now on these are told too, and nothing else: see [`words`].
    Trace(Vec<String>),
    /// How each server sees the cluster.
    Status,
    /// Where a room lives, and who holds what of it.
    Room(String),
    /// Each server's clock of a room.
    Clocks(String),
}

struct Person {
    name: String,
    end: (NodeId, ConnId),
    connected: bool,
    room: String,
    position: Option<Position>,
}

/// A stage with whole servers.
#[derive(Default)]
pub(super) struct Play {
    cluster: TestCluster,
    design: Option<Design>,
    election: ElectionKind,
    lives: Lives,
    /// How each server saw the cluster when it was looked at last.
    views: BTreeMap<NodeId, View>,
    /// What is left of those that do not run.
    disks: BTreeMap<NodeId, (NodeConfig, Vec<Message>)>,
    people: BTreeMap<String, Person>,
    traced: BTreeSet<String>,
    output: String,
}

impl Play {
    fn start(&mut self, id: &str, disk: Option<(NodeConfig, Vec<Message>)>) {
        let (mut config, records) = disk.unwrap_or_else(|| {
            let known: BTreeSet<&str> =
                self.cluster.nodes.keys().chain(self.disks.keys()).map(NodeId::as_str).collect();
            (config(id, &known.into_iter().collect::<Vec<_>>(), 1), Vec::new())
        });
        config.election = self.election;
        if let Some(design) = self.design {
            // Of one luck all would stand at once, again and again.
            config.seed = id.bytes().map(u64::from).sum();
            config.design = design.to_string();
        }
        let life = self.lives.next(&config.server_id);
        config.incarnation = Incarnation::new(&config.server_id, life, 0);
        self.lives.add(&config.incarnation, life);
        self.cluster.start_with_log(config, records);
    }

    fn servers(&mut self, ids: &[String]) {
        let peers: Vec<&str> = ids.iter().map(String::as_str).collect();
        for id in ids {
            self.start(id, Some((config(id, &peers, 1), Vec::new())));
        }
        self.advance(1500);
    }

    fn crash(&mut self, id: &str) -> Result<(), Box<dyn Error>> {
        let node = self.cluster.nodes.get(&NodeId::from(id)).ok_or(format!("no server {id}"))?;
        let config = node.node.config.clone();
        let records = self.cluster.crash(id);
        self.tell();
        self.views.remove(&config.server_id);
        for (who, person) in &mut self.people {
            if person.connected && person.end.0 == config.server_id {
                person.connected = false;
                _ = writeln!(self.output, "{who} loses {id}");
            }
        }
        self.disks.insert(config.server_id.clone(), (config, records));
        Ok(())
    }

    fn restart(&mut self, id: &str, wiped: bool) -> Result<(), Box<dyn Error>> {
        let disk = self.disks.remove(&NodeId::from(id)).ok_or(format!("{id} did not crash"))?;
        let (mut config, mut records) = disk;
        if wiped {
            config.disk_id += "'";
            records.clear();
        }
        self.start(id, Some((config, records)));
        Ok(())
    }

    fn trace(&mut self, kinds: &[String]) -> Result<(), Box<dyn Error>> {
        let types = MessageType::ALL.iter().map(|kind| kind.as_str().to_lowercase());
        let known: BTreeSet<String> =
            types.chain(words::KINDS.iter().map(ToString::to_string)).collect();
        if let Some(unknown) = kinds.iter().find(|kind| !known.contains(*kind)) {
            return Err(format!("nothing is traced as {unknown}").into());
        }
        self.traced = kinds.iter().cloned().collect();
        Ok(())
    }

    fn impostor(&mut self, id: &str, to: &str) {
        let mut config = config("elsewhere", &[], 1);
        config.server_id = id.into();
        config.incarnation = Incarnation::new(&config.server_id, 1, 7);
        let hello = ServerNode::new(config, self.cluster.now()).hello();
        let end = self.cluster.connect(to);
        let person = Person {
            name: id.into(),
            end: end.clone(),
            connected: true,
            room: String::new(),
            position: None,
        };
        self.people.insert(format!("the other {id}"), person);
        self.cluster.say(&end, hello);
    }

    fn advance(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.cluster.advance(50);
            self.look();
        }
    }

    // ------------------------------------------------------------ people

    fn person(&mut self, who: &str) -> Result<&mut Person, Box<dyn Error>> {
        Ok(self.people.get_mut(who).ok_or(format!("nobody is called {who}"))?)
    }

    fn connect(&mut self, who: &str, id: &str, join: &JoinRoom) -> Result<(), Box<dyn Error>> {
        let end = self.cluster.connect(id);
        let person = self.person(who)?;
        person.end = end.clone();
        person.connected = true;
        let (name, room) = (person.name.clone(), person.room.clone());
        let hello = ClientJoin { session: who.into(), ..ClientJoin::default() };
        let hello = Message::new(MessageType::ClientJoin, name).with_id("hello").saying(&hello);
        self.cluster.say(&end, hello);
        if !room.is_empty() {
            self.cluster.join(&end, &room, join.clone());
        }
        Ok(())
    }

    fn hang_up(&mut self, who: &str) -> Result<(), Box<dyn Error>> {
        let person = self.person(who)?;
        let (end, connected) = (person.end.clone(), person.connected);
        person.connected = false;
        if connected && self.cluster.nodes.contains_key(&end.0) {
            self.cluster.hang_up(&end);
        }
        Ok(())
    }

    fn say(&mut self, who: &str, ids: &[String]) -> Result<(), Box<dyn Error>> {
        let person = self.person(who)?;
        if !person.connected {
            return Err(format!("{who} is not connected").into());
        }
        let (end, room) = (person.end.clone(), person.room.clone());
        for id in ids {
            self.cluster.chat(&end, &room, id);
        }
        Ok(())
    }

    fn act(&mut self, verb: &Verb) -> Result<(), Box<dyn Error>> {
        match verb {
            Verb::Design(name) => {
                let design = Design::ALL.into_iter().find(|design| design.to_string() == *name);
                self.design = Some(design.ok_or_else(|| format!("no design is called {name}"))?);
            }
            Verb::Election(name) => {
                let unknown = || format!("nobody holds elections by {name}");
                self.election = ElectionKind::named(name).ok_or_else(unknown)?;
            }
            Verb::Servers(ids) => self.servers(ids),
            Verb::Start(id) => self.start(id, None),
            Verb::Crash(ids) => ids.iter().try_for_each(|id| self.crash(id))?,
            Verb::Restart(ids) => ids.iter().try_for_each(|id| self.restart(id, false))?,
            Verb::Wipe(id) => self.restart(id, true)?,
            Verb::Stop(id) => {
                self.cluster.step(&id.as_str().into(), ServerNode::stop);
                self.cluster.run();
                self.crash(id)?;
            }
            Verb::Stall(from, to) => to.iter().for_each(|to| self.cluster.stall(from, to, true)),
            Verb::Unstall(from, to) => to.iter().for_each(|to| self.cluster.stall(from, to, false)),
            Verb::Cut(a, others) => others.iter().for_each(|b| self.cluster.cut(a, b)),
            Verb::Heal => self.cluster.heal(),
            Verb::Disk { speed, ids } => {
                let is_fast = match speed.as_str() {
                    "fast" => true,
                    "slow" => false,
                    other => return Err(format!("a disk is fast or slow, not {other}").into()),
                };
                for id in ids {
                    self.cluster.set_syncing(id, is_fast);
                }
            }
            Verb::Sleep(id) => _ = self.cluster.asleep.insert(id.as_str().into()),
            Verb::Wake(id) => self.cluster.wake(id),
            Verb::Impostor(id, to) => self.impostor(id, to),
            Verb::Client { who, id, room, name } => {
                let name = name.as_ref().unwrap_or(who).clone();
                let room = room.clone().unwrap_or_default();
                let end = (id.as_str().into(), ConnId(0));
                let person = Person { name, end, connected: false, room, position: None };
                self.people.insert(who.clone(), person);
                self.connect(who, id, &JoinRoom::default())?;
            }
            Verb::Say(who, ids) => self.say(who, ids)?,
            Verb::Move { who, id, accept_gap } => {
                self.hang_up(who)?;
                let after = self.person(who)?.position.clone();
                self.connect(who, id, &JoinRoom { after, accept_gap: *accept_gap, history: None })?;
            }
            Verb::HangUp(who) => self.hang_up(who)?,
            Verb::Advance(ms) => self.advance(*ms),
            Verb::Trace(kinds) => self.trace(kinds)?,
            Verb::Status => self.tell_status(),
            Verb::Room(room_id) => self.tell_room(room_id),
            Verb::Clocks(room_id) => self.tell_clocks(room_id),
        }
        Ok(())
    }
}

impl Runner for Play {
    type Command = Verb;

    fn start_script(&mut self) -> Result<(), Box<dyn Error>> {
        self.cluster.story = Some(Vec::new());
        Ok(())
    }

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        self.act(verb)?;
        self.look();
        Ok(std::mem::take(&mut self.output))
    }
}

fn play_all(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(folder);
    let mut scripts: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{} holds no scripts", folder.display());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut Play::default(), script).unwrap();
    }
}

#[test]
fn the_rules_of_the_ring_hold_on_stage() {
    play_all("ring");
}

#[test]
fn the_scenarios_of_the_guide_go_as_told() {
    play_all("scenarios");
}
