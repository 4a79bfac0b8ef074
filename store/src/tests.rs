//! The store as a whole, over real sockets: threads, engines and board, without the process around them.

mod feed;
mod gated;
mod generations;
mod keeping;
mod process;
mod recovery;
mod world;
mod writes;
