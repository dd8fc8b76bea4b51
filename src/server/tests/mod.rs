//! The server logic as one, a few servers at a time, matter by matter.

mod clients;
mod kept;
mod links;
mod plays;
mod rooms;

pub(super) use kept::alone::Alone;
