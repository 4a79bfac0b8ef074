//! The process that asks the sources of modules whether something was published, for the generation in force: it tells the
//! supervisor what it found, and ends. It makes nothing and keeps nothing.

use aegis_config::Config;
use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    bundle::Bundle,
    codec,
    control::{ControlSocket, ToSupervisor},
    handoff,
};
use aegis_supervisor::exit;

use crate::{
    app::{self, Look},
    compile::deliver,
    roles::{self, Given},
};

/// Modules, or reasons, that are told to the supervisor.
const TOLD_MAX: usize = 10;
/// Characters of one of them.
const CHARACTERS_MAX: usize = 500;

/// Asks the sources.
pub(crate) fn look(given: Given) -> u8 {
    ask(given).unwrap_or_else(|error| roles::fail("look", &error))
}

fn ask(given: Given) -> Result<u8, IpcError> {
    roles::name_process("look");
    roles::become_helper()?;
    let handoff = given?;
    let control = ControlSocket::from_descriptor(handoff::adopt(handoff.control, "control socket")?);
    let (protocol, pid, generation) = (PROTOCOL_VERSION, std::process::id(), handoff.generation);
    deliver(&control, &ToSupervisor::Hello { protocol, pid, generation }, &[])?;
    let missing = || IpcError::Unexpected {
        object: "the handoff".to_owned(),
        found: "no bundle".to_owned(),
        expected: "the generation in force".to_owned(),
    };
    let bundle =
        handoff::adopt(handoff.bundle.ok_or_else(missing)?, "the bundle of the generation in force")?;
    let bundle = Bundle::read(&bundle)?;
    let mut config: Config = codec::decode(&bundle.config)?;
    // What was deployed goes before whatever the source of the module has.
    let is_deployed =
        |name: &str| bundle.modules.iter().any(|one| one.name == name && one.deployed.is_some());
    config.modules.retain(|name, _| !is_deployed(name));
    let Look { asked, changed, away } = app::look(&config);
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (asked, absent) = (count(asked), count(away.len()));
    deliver(
        &control,
        &ToSupervisor::Looked { asked, changed: some(changed), away: some(away), absent },
        &[],
    )?;
    Ok(exit::FINE)
}

/// As much as is worth telling.
fn some(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().take(TOLD_MAX).map(|line| line.chars().take(CHARACTERS_MAX).collect()).collect()
}
