//! The fleet in a pretended world: processes that start late, crash, hang and die, without a single real one.

mod backoffs;
mod checks;
mod quorum;
mod rules;
mod simulation;
mod stories;
mod upgrades;
mod world;
