//! The product as its users see it: real processes, real sockets, real signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authoring;
mod balance;
mod canary;
mod coherence;
mod config;
mod crash;
mod crash_loop;
mod crud;
mod drain;
mod durability;
mod errors;
mod events;
mod idempotency;
mod introspection;
mod leaks;
mod list;
mod logs;
mod modules;
mod outgoing;
mod reload;
mod scale;
mod services;
mod shop;
mod shutdown;
mod sources;
mod store_trouble;
mod systemd;
mod upgrade;
mod validation;
mod webhook;
