//! The product as its users see it: real processes, real sockets, real signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod asking;
mod authoring;
mod balance;
mod canary;
mod coherence;
mod config;
mod crash;
mod crash_loop;
mod crud;
mod deliveries;
mod deploy;
mod dev;
mod drain;
mod durability;
mod errors;
mod events;
mod evergreen;
mod idempotency;
mod introspection;
mod languages;
mod leaks;
mod list;
mod logs;
mod module_trouble;
mod modules;
mod outgoing;
mod reload;
mod rollback;
mod scale;
mod services;
mod shared_code;
mod shop;
mod shutdown;
mod sources;
mod store_trouble;
mod swap;
mod systemd;
mod trials;
mod upgrade;
mod validation;
mod webhook;
