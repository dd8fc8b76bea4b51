//! The server logic as one, a few servers at a time, matter by matter.

mod clients;
mod links;
mod plays;
mod rooms;
