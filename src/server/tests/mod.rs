//! The server logic as one, a few servers at a time, matter by matter.

mod clients;
mod history;
mod kept;
mod links;
mod members;
mod plays;
mod rooms;

pub(super) use kept::alone::Alone;
