//! The contract with the operator.
//!
//! A host is configured by `aegis.toml` in its app folder (annotated in `config/aegis.toml`), by variables of the
//! environment and by flags. The first of these that says something about a setting wins:
//!
//! 1. a flag of the command line ([`Overrides`]),
//! 2. a variable `AEGIS_…` ([`environment`]), then its alias from the original host ([`aliases`]),
//! 3. the file,
//! 4. the default.
//!
//! Reading is done in two steps: what was *written* (any key, any value) becomes what it *means* ([`Config`]), and
//! every mistake on the way is reported, all at once, with its place, the value found and the values expected.
//! Nothing else in the host looks at files, flags or variables, and nothing changes a [`Config`] once it is resolved:
//! a change comes into force with the next generation.

mod auth;
mod builds;
mod defaults;
mod disable;
mod error;
mod flags;
mod found;
mod grants;
mod keys;
mod kind;
mod load;
mod modules;
mod quantity;
mod raw;
mod resolve;
mod rules;
mod secrets;
pub mod settings;
mod sources;
mod trust;
mod view;

pub mod aliases;
pub mod environment;

pub use auth::{Auth, AuthKey};
pub use defaults::{WORKERS_MAX, default_socket};
pub use environment::Environment;
pub use error::{Certain, ConfigError, ConfigErrors, Place};
pub use flags::Overrides;
pub use load::{CONFIG_FILE, Loaded, MODULES_FOLDER, ModuleLines, located};
pub use modules::read_module_limit;
pub use quantity::{format_size, format_time};
pub use settings::*;
pub use trust::{PublicKey, Signatures, Trust, TrustedKey};
pub use view::View;
