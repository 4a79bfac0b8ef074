//! The vocabulary of the black-box tests: a [`Cluster`] of real processes, a [`Client`] that speaks in models, a
//! [`load`] generator that classifies every failure, and [`eventually`].
//!
//! Nothing here knows the inside of the product: processes are started, signals are sent, HTTP is spoken. A cluster
//! that is dropped by a failing test keeps its folder with all logs and says where it is.

pub mod app;
pub mod author;
pub mod client;
pub mod cluster;
pub mod compiled;
pub mod disk;
pub mod footprint;
pub mod http;
pub mod issuer;
pub mod load;
pub mod notify;
pub mod publisher;
pub mod registry;
pub mod unsynced;
pub mod wait;

pub use app::{App, QUICK};
pub use author::Author;
pub use client::Client;
pub use cluster::{Cluster, Start, words};
pub use disk::Disk;
pub use footprint::Footprint;
pub use http::{Connection, Failure, Response};
pub use issuer::Issuer;
pub use publisher::Publisher;
pub use wait::{eventually, eventually_some};
