//! Values: what servers and clients talk about.
//!
//! Must not know: sockets, files, locks, threads, clocks. Everything here is plain data with methods
//! that give the same answer to the same question, so that the simulator, the servers and the clients
//! share it.
//!
//! Reading order: [`ids`], [`vector_clock`], [`message`], [`content`], [`raft_content`], [`request_error`],
//! [`hold_back`], [`history`], [`room`], [`stored_chat`].

pub mod ids;
pub mod vector_clock;

mod special;

pub mod chat;
pub mod message;

pub mod content;
pub mod raft_content;

pub mod request_error;

pub mod hold_back;

pub(crate) mod columns;

pub mod history;

pub mod room;

pub mod stamped_chat;
pub mod stored_chat;

pub use chat::Chat;
pub use history::{Absent, History, Outline, Outlines};
pub use hold_back::HoldBackQueue;
pub use ids::{Incarnation, NodeId, Term};
pub use message::{Content, Frame, Message, MessageType};
pub use room::Room;
pub use stamped_chat::{StampedChat, WrittenChat};
pub use stored_chat::{StoredChat, StoredChats};
pub use vector_clock::VectorClock;
