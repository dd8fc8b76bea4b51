//! Roundtable: a fault-tolerant distributed chat.

pub mod cli;
pub mod client;
pub mod config;
pub mod domain;
pub mod error;
pub mod logging;
pub mod network;
pub mod server;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod wire;
