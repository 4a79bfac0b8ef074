//! Upgrades that do not go straight to another image.

use std::{
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
};

use aegis_ipc::operator::{Request, Verdict};

use crate::{
    harness::Host,
    stories::{RELOAD, TWO, pids},
};

/// An image that cannot go on. Its rehearsal sees the true state. When it gets serious, it finds one that it cannot understand:
/// only the first line, which shows the way back.
fn half_an_image(host: &Host) -> String {
    let script = format!(
        "#!/bin/bash\nif [ $$ = {} ]; then head -n 1 /proc/self/fd/$3 > {state}; exec 199< {state}; \
         exec {program} supervisor --resume 199; fi\nexec {program} \"$@\"\n",
        host.pid(),
        state = host.folder().join("state").display(),
        program = std::env::current_exe().unwrap().display(),
    );
    host.script("half", &script)
}

pub(crate) fn returns() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    let verdict = host.verdict(&Request::Upgrade { path: Some(half_an_image(&host)) });
    let Verdict::RolledBack { reason } = &verdict else { panic!("{verdict:?}") };
    assert!(reason.contains("cannot decode"), "{reason}");
    let after = host.settled(2);
    assert_eq!(after.pid, before.pid);
    assert_eq!(pids(&before), pids(&after), "nothing was touched");
    host.tell("catalog", "second");
    assert_eq!(host.verdict(&RELOAD), Verdict::Done, "it goes on as before");
}

pub(crate) fn follows_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let [first, second, third, link] =
        ["v1", "v2", "v3", "current"].map(|name| std::fs::canonicalize(&folder).unwrap().join(name));
    for version in [&first, &second, &third] {
        std::fs::copy(&program, version).unwrap();
    }
    symlink(&program, &link).unwrap();
    let host = Host::start_with(TWO, |command| {
        command.arg0(&link);
    });
    host.settled(2);
    let upgrade_to = |path: &Path| {
        std::fs::remove_file(&link).unwrap();
        symlink(path, &link).unwrap();
        let verdict = host.verdict(&Request::Upgrade { path: None });
        host.settled(2);
        (verdict, std::fs::read_link(format!("/proc/{}/exe", host.pid())).unwrap())
    };
    assert_eq!(upgrade_to(&first), (Verdict::Done, first.clone()));
    assert_eq!(upgrade_to(&second), (Verdict::Done, second.clone()), "the next image knows it as well");
    let (verdict, image) = upgrade_to(Path::new(&half_an_image(&host)));
    assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict:?}");
    assert_eq!(image, second);
    assert_eq!(upgrade_to(&third), (Verdict::Done, third.clone()), "and so does one that is back");
}
