//! The life of instances beyond their calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::code::{CodeLimits, CommandPlace, Grants};
use aegis_guests::{Body, Guest, agree, refuse, sleep, spin, tally, tell, trap, with_system};
use serde_json::{Value, json};

use super::{NOTHING, PATIENCE, Worker, answer, bank::Bank, call, command, prepare, seal};
use crate::{
    Call, CallError, Drained, Handover, Lineage, Module, RefusalCode, Services, Succession, SuccessionError,
    Successors,
};

/// Time that is enough for all that behaves.
fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Another module in the same worker.
fn beside(worker: &Worker, guest: &Guest, settings: Value, generation: u64) -> Arc<Module> {
    let module = granted(worker, guest, (settings, Grants::default()), Arc::new(NOTHING));
    Arc::new(module.of_generation(generation))
}

/// Another module in the same worker, about which the operator says this.
fn granted(
    worker: &Worker,
    guest: &Guest,
    (settings, grants): (Value, Grants),
    services: Arc<dyn Services>,
) -> Module {
    let prepared = prepare(&guest.build(), CodeLimits::default()).unwrap_or_else(|error| panic!("{error}"));
    let (file, place) = seal(&prepared.code);
    let mut code = prepared.spec.code.unwrap();
    (code.settings, code.grants) = (settings, grants);
    let name = prepared.spec.name.to_string();
    worker.runtime.load(&name, &code, (&file, place), services).unwrap()
}

fn ask(worker: &Worker, module: &Arc<Module>, name: &str) -> Result<Option<String>, CallError> {
    worker.tokio.block_on(worker.runtime.call(module, CommandPlace::Io, call(), command(name, "{}")))
}

fn save(worker: &Worker, module: &Arc<Module>) -> Result<Option<Handover>, CallError> {
    worker.tokio.block_on(async {
        let halt = worker.runtime.halt(module, soon()).await?;
        worker.runtime.save(module, &halt, soon()).await
    })
}

/// Settles how instances of `before` go on as those of `module`.
async fn settle(
    worker: &Worker,
    module: &Arc<Module>,
    before: &Arc<Module>,
) -> Result<Successors, SuccessionError> {
    let halt = worker.runtime.halt(before, soon()).await.unwrap();
    worker.runtime.succeed(module, (before, &halt), soon()).await
}

/// Lets instances of `before` go on as those of `module`.
fn succeed(worker: &Worker, module: &Arc<Module>, before: &Arc<Module>) -> Succession {
    worker.tokio.block_on(async { settle(worker, module, before).await.unwrap().go_on() })
}

fn refusal(error: CallError) -> (RefusalCode, String) {
    match error {
        CallError::Refused(refusal) => (refusal.code, refusal.message),
        other => panic!("found {other:?}, expected a refusal"),
    }
}

#[test]
fn a_counter_survives_twenty_versions() {
    let worker = Worker::of(&aegis_guests::heir("1.0.0"));
    let mut module = Arc::clone(&worker.module);
    for generation in 1..=20 {
        assert_eq!(ask(&worker, &module, "next"), answer(&generation.to_string()));
        let handover = save(&worker, &module).unwrap().unwrap();
        assert_eq!(handover.from_version, format!("1.0.{}", generation - 1));
        let next = beside(&worker, &aegis_guests::heir(&format!("1.0.{generation}")), json!({}), generation);
        worker.tokio.block_on(worker.runtime.restore(&next, &handover, soon())).unwrap();
        assert_eq!(next.instances(), 1);
        module = next;
    }
    assert_eq!(ask(&worker, &module, "next"), answer("21"));
}

#[test]
fn the_instance_that_hands_over_goes_on() {
    let worker = Worker::of(&aegis_guests::heir("1.0.0"));
    assert_eq!(worker.command("next", "{}"), answer("1"));
    save(&worker, &worker.module).unwrap().unwrap();
    assert_eq!(worker.command("next", "{}"), answer("2"));
}

#[test]
fn a_module_is_halted_when_its_calls_have_ended_and_until_nobody_wants_that() {
    let limits = CodeLimits { call_ms_max: 200, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::heir("1.0.0"), limits);
    worker.tokio.block_on(async {
        let runs = worker.module.place(&crate::call::Budget::new(PATIENCE)).await.unwrap();
        let (runtime, module) = (&worker.runtime, &worker.module);
        let busy = CallError::Busy { module: "counter".to_owned() };
        assert_eq!(runtime.halt(module, soon()).await.unwrap_err(), busy, "one that does not end");
        drop(runs);
        let halt = runtime.halt(module, soon()).await.unwrap();
        assert_eq!(worker.enter(call(), command("next", "{}")).await, Err(busy));
        drop(halt);
        assert_eq!(worker.enter(call(), command("next", "{}")).await, answer("1"));
    });
}

#[test]
fn what_a_module_that_hands_over_waits_for_is_refused_by_what_is_halted_and_everybody_else_waits() {
    let limits = CodeLimits { call_ms_max: 200, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::heir("1.0.0"), limits);
    let (handover, request) = (Lineage::of_handover(), Lineage::begin());
    let led_from = |lineage: Lineage| Call { lineage, ..call() };
    worker.tokio.block_on(async {
        let next = || command("next", "{}");
        let halt = worker.runtime.halt(&worker.module, soon()).await.unwrap();
        let refused = worker.enter(led_from(handover.deeper()), next()).await.unwrap_err();
        let told = "module counter is not called while state is handed over".to_owned();
        assert_eq!(refusal(refused), (RefusalCode::Unavailable, told));
        let busy = Err(CallError::Busy { module: "counter".to_owned() });
        for others in [handover, request, request.deeper()] {
            assert_eq!(worker.enter(led_from(others), next()).await, busy);
        }
        drop(halt);
        assert_eq!(worker.enter(led_from(handover.deeper()), next()).await, answer("1"));
    });
}

#[test]
fn who_has_nothing_to_hand_over_is_not_asked() {
    let worker = Worker::of(&aegis_guests::heir("1.0.0"));
    assert_eq!(save(&worker, &worker.module), Ok(None), "there is no instance yet");
    let other = beside(&worker, &aegis_guests::counter(), json!({}), 1);
    assert_eq!(ask(&worker, &other, "next"), answer("1"));
    assert_eq!(save(&worker, &other), Ok(None));
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![7; 8] };
    assert_eq!(worker.tokio.block_on(worker.runtime.restore(&other, &handover, soon())), Ok(()));
    assert_eq!(ask(&worker, &other, "next"), answer("2"));
}

#[test]
fn a_state_beyond_the_payload_limit_is_not_taken() {
    let huge = "(drop (memory.grow (i32.const 513))) (call $answer (global.get $heap) (i32.const 0x2000000))";
    let worker = Worker::of(&aegis_guests::heir("1.0.0").function("handover", "save", huge));
    assert_eq!(worker.command("next", "{}"), answer("1"));
    let error = save(&worker, &worker.module).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("it hands over more bytes at once than it may"), "{told}");
    assert!(told.starts_with("save of module counter failed"), "{told}");
    assert_eq!(worker.command("next", "{}"), answer("1"), "its instance is gone, the next one begins anew");
    let gigabyte = "(call $answer (global.get $heap) (i32.const 0x40000000))";
    let worker = Worker::of(&aegis_guests::heir("1.0.0").function("handover", "save", gigabyte));
    assert_eq!(worker.command("next", "{}"), answer("1"));
    let told = save(&worker, &worker.module).unwrap_err().to_string();
    assert!(told.starts_with("save of module counter failed"), "no instance has a gigabyte: {told}");
}

#[test]
fn a_restore_that_fails_says_why_and_leaves_no_instance() {
    let worker = Worker::of(&aegis_guests::plain());
    let handover = |version: &str| Handover { from_version: version.to_owned(), state: vec![0; 8] };
    let restore = |guest: &Guest, version: &str| {
        let module = beside(&worker, guest, json!({}), 2);
        let error = worker.tokio.block_on(worker.runtime.restore(&module, &handover(version), soon()));
        (error.unwrap_err(), module.instances())
    };
    let (error, left) = restore(&aegis_guests::heir("2.0.0"), "0.9.0");
    assert_eq!((refusal(error), left), ((RefusalCode::Unsupported, "it is too old".to_owned()), 0));
    let (error, left) =
        restore(&aegis_guests::heir("2.0.0").function("handover", "restore", trap()), "1.0.0");
    assert!(
        matches!(&error, CallError::Trapped { entry, .. } if entry == "restore") && left == 0,
        "{error:?}"
    );
    let (error, left) =
        restore(&aegis_guests::heir("2.0.0").function("handover", "restore", spin()), "1.0.0");
    assert!(
        matches!(&error, CallError::Deadline { entry, .. } if entry == "restore") && left == 0,
        "{error:?}"
    );
}

#[test]
fn an_instance_says_whether_it_is_well() {
    let worker = Worker::of(&aegis_guests::counter());
    let health = |guest: &Guest| {
        let module = beside(&worker, guest, json!({}), 1);
        worker.tokio.block_on(worker.runtime.health(&module, soon()))
    };
    assert_eq!(health(&aegis_guests::plain()), Ok(()), "it cannot be asked");
    assert_eq!(health(&aegis_guests::counter()), Ok(()));
    let ill = aegis_guests::counter().lifecycle("health", refuse("unavailable", "no more room"));
    assert_eq!(refusal(health(&ill).unwrap_err()), (RefusalCode::Unavailable, "no more room".to_owned()));
    let broken = health(&aegis_guests::counter().lifecycle("health", trap())).unwrap_err();
    assert!(matches!(&broken, CallError::Trapped { entry, .. } if entry == "health"), "{broken:?}");
    let late = health(&aegis_guests::counter().lifecycle("health", spin())).unwrap_err();
    assert!(matches!(&late, CallError::Deadline { entry, .. } if entry == "health"), "{late:?}");
}

#[test]
fn a_drain_that_does_not_end_is_ended_at_its_deadline() {
    let worker = Worker::of(&aegis_guests::counter().lifecycle("drain", spin()));
    assert_eq!(worker.command("next", "{}"), answer("1"));
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(50);
    let drained = worker.tokio.block_on(worker.runtime.drain(&worker.module, deadline));
    assert_eq!(drained, Drained { ended: 0, cut_off: 1 });
    assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < PATIENCE);
    assert_eq!(worker.module.instances(), 0);
}

#[test]
fn instances_that_behave_end_in_time() {
    for guest in [aegis_guests::counter(), aegis_guests::heir("1.0.0")] {
        let worker = Worker::of(&guest);
        assert_eq!(worker.command("next", "{}"), answer("1"));
        let drained = worker.tokio.block_on(worker.runtime.drain(&worker.module, soon()));
        assert_eq!(drained, Drained { ended: 1, cut_off: 0 });
        assert_eq!(worker.module.instances(), 0);
    }
}

/// Waits until code has measured so often.
fn until_measured(worker: &Worker, bank: &Bank, count: u32) {
    let begun = Instant::now();
    while bank.measured() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} have ended", bank.measured());
        worker.tokio.block_on(tokio::task::yield_now());
    }
}

#[test]
fn instances_that_nobody_wants_release_what_they_hold() {
    let bank = Arc::new(Bank::default());
    let guest = aegis_guests::heir("1.0.0").lifecycle("drain", tally("drained"));
    let worker = Worker::with(&guest, CodeLimits::default(), Arc::<Bank>::clone(&bank));
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![0; 8] };
    worker.tokio.block_on(async {
        for _ in 0..3 {
            worker.runtime.restore(&worker.module, &handover, soon()).await.unwrap();
        }
        assert_eq!(worker.module.instances(), 3);
        worker.runtime.berths().tidy();
        worker.runtime.berths().tidy();
        assert_eq!(worker.module.instances(), 1);
    });
    until_measured(&worker, &bank, 2);
    assert_eq!(worker.command("next", "{}"), answer("1"));
    assert_eq!(bank.measured(), 2, "the one that stays is not told");
}

#[test]
fn instances_that_had_their_calls_release_what_they_hold() {
    let bank = Arc::new(Bank::default());
    let guest = aegis_guests::counter().lifecycle("drain", tally("drained"));
    let limits = CodeLimits { calls_per_instance_max: 2, ..CodeLimits::default() };
    let worker = Worker::with(&guest, limits, Arc::<Bank>::clone(&bank));
    for next in ["1", "2", "1"] {
        assert_eq!(worker.command("next", "{}"), answer(next));
    }
    until_measured(&worker, &bank, 1);
}

#[test]
fn an_instance_goes_on_under_other_settings_if_it_wants_to() {
    let worker = Worker::of(&aegis_guests::plain());
    let go_on = |guest: &Guest, settings: Value| {
        let before = beside(&worker, guest, json!({ "a": 1 }), 1);
        assert_eq!(ask(&worker, &before, "next"), answer("1"));
        let module = beside(&worker, guest, settings, 2);
        let succession = succeed(&worker, &module, &before);
        assert_eq!(before.instances(), 0);
        let next = ask(&worker, &module, "next").unwrap().unwrap();
        let generation = ask(&worker, &module, "generation").unwrap().unwrap();
        (succession, next, generation)
    };
    let kept = Succession { kept: 1, replaced: 0 };
    let replaced = Succession { kept: 0, replaced: 1 };
    let told = |outcome, next: &str| (outcome, next.to_owned(), "2".to_owned());
    let counter = aegis_guests::counter();
    assert_eq!(go_on(&counter, json!({ "a": 2 })), told(kept, "2"));
    let stubborn = aegis_guests::counter().lifecycle("reconfigure", refuse("unsupported", "replace me"));
    assert_eq!(go_on(&stubborn, json!({ "a": 2 })), told(replaced, "1"));
    assert_eq!(go_on(&stubborn, json!({ "a": 1 })), told(kept, "2"), "nothing to be told");
    let broken = aegis_guests::counter().lifecycle("reconfigure", spin());
    assert_eq!(go_on(&broken, json!({ "a": 2 })), told(replaced, "1"));
}

/// One that begins with `picky` takes no state over.
fn picky() -> Guest {
    let begin =
        Body::from("(global.set $picky (i32.const 1)) (call $agree)").when_holds("config", "\"picky\"");
    let restore = Body::from("(if (global.get $picky) (then (return")
        .then(refuse("unsupported", "it is picky"))
        .then(")))")
        .then("(global.set $count (i64.load align=1 (local.get $state)))")
        .then(agree());
    aegis_guests::heir("1.0.0")
        .item("(global $picky (mut i32) (i32.const 0))")
        .lifecycle("init", begin.then(agree()))
        .function("handover", "restore", restore)
}

#[test]
fn the_state_of_an_instance_that_cannot_go_on_goes_to_another_one() {
    let worker = Worker::of(&aegis_guests::plain());
    let heir = || aegis_guests::heir("1.0.0");
    let cannot = [
        heir().without("lifecycle"),
        heir().lifecycle("reconfigure", refuse("unsupported", "replace me")),
        heir().lifecycle("reconfigure", trap()),
    ];
    for guest in cannot {
        let before = beside(&worker, &guest, json!({ "a": 1 }), 1);
        for next in ["1", "2", "3"] {
            assert_eq!(ask(&worker, &before, "next"), answer(next));
        }
        let module = beside(&worker, &guest, json!({ "a": 2 }), 2);
        assert_eq!(succeed(&worker, &module, &before), Succession { kept: 0, replaced: 1 });
        assert_eq!((before.instances(), module.instances()), (0, 1));
        assert_eq!(ask(&worker, &module, "next"), answer("4"));
        assert_eq!(ask(&worker, &module, "generation"), answer("2"));
    }
}

#[test]
fn state_that_no_instance_takes_stays_where_it_was() {
    let worker = Worker::of(&aegis_guests::plain());
    let reconfigures = [refuse("unsupported", "replace me"), trap()];
    for guest in reconfigures.map(|reconfigure| picky().lifecycle("reconfigure", reconfigure)) {
        let before = beside(&worker, &guest, json!({ "a": 1 }), 1);
        assert_eq!(ask(&worker, &before, "next"), answer("1"));
        let module = beside(&worker, &guest, json!({ "picky": true }), 2);
        match worker.tokio.block_on(settle(&worker, &module, &before)) {
            Err(SuccessionError::NotTaken(error)) => assert_eq!(refusal(error).1, "it is picky"),
            other => panic!("{:?}", other.map(Successors::go_on)),
        }
        assert_eq!((before.instances(), module.instances()), (1, 0));
        assert_eq!(ask(&worker, &before, "next"), answer("2"));
        assert_eq!(ask(&worker, &before, "generation"), answer("1"));
    }
}

#[test]
fn an_instance_that_neither_goes_on_nor_hands_over_stays_where_it_was() {
    let worker = Worker::of(&aegis_guests::plain());
    let no = |message: &str| refuse("unavailable", message);
    let guest = aegis_guests::heir("1.0.0").function("handover", "save", no("not now"));
    let stubborn = guest.clone().lifecycle("reconfigure", no("replace me"));
    let before = beside(&worker, &stubborn, json!({ "a": 1 }), 1);
    assert_eq!(ask(&worker, &before, "next"), answer("1"));
    let module = beside(&worker, &stubborn, json!({ "a": 2 }), 2);
    match worker.tokio.block_on(settle(&worker, &module, &before)) {
        Err(SuccessionError::NotGiven(error)) => assert_eq!(refusal(error).1, "not now"),
        other => panic!("{:?}", other.map(Successors::go_on)),
    }
    assert_eq!(ask(&worker, &before, "next"), answer("2"));
    let before = beside(&worker, &guest, json!({ "a": 1 }), 1);
    assert_eq!(ask(&worker, &before, "next"), answer("1"));
    let module = beside(&worker, &guest, json!({ "a": 2 }), 2);
    assert_eq!(succeed(&worker, &module, &before), Succession { kept: 1, replaced: 0 });
    assert_eq!(ask(&worker, &module, "next"), answer("2"), "one that agrees hands nothing over");
}

#[test]
fn instances_that_are_taken_back_are_told_the_settings_of_before() {
    let bank = Arc::new(Bank::default());
    let worker = Worker::of(&aegis_guests::plain());
    let of = |guest: &Guest, settings: Value| {
        Arc::new(granted(&worker, guest, (settings, Grants::default()), Arc::<Bank>::clone(&bank) as _))
    };
    let forward_only = refuse("unsupported", "never again").when_holds("config", "\"old\"");
    let told = || tally("told").then(agree());
    for (reconfigure, times) in [(told(), 2), (forward_only.then(told()), 3)] {
        let guest = aegis_guests::heir("1.0.0").lifecycle("reconfigure", reconfigure);
        let (before, module) = (of(&guest, json!({ "old": 1 })), of(&guest, json!({ "new": 1 })));
        assert_eq!(ask(&worker, &before, "next"), answer("1"));
        worker.tokio.block_on(async {
            let successors = settle(&worker, &module, &before).await.unwrap();
            assert_eq!((before.instances(), module.instances()), (0, 0), "nothing is decided");
            worker.runtime.take_back(successors).await;
        });
        assert_eq!(bank.measured(), times);
        assert_eq!((before.instances(), module.instances()), (1, 0));
        assert_eq!(ask(&worker, &before, "next"), answer("2"));
    }
}

#[test]
fn instances_of_other_code_do_not_go_on() {
    let worker = Worker::of(&aegis_guests::heir("1.0.0"));
    assert_eq!(worker.command("next", "{}"), answer("1"));
    let module = beside(&worker, &aegis_guests::heir("1.0.1"), json!({}), 2);
    let succession = succeed(&worker, &module, &worker.module);
    assert_eq!((succession, worker.module.instances()), (Succession::default(), 1));
}

#[test]
fn instances_of_another_runtime_do_not_go_on() {
    let guest = aegis_guests::counter();
    let (one, other) = (Worker::of(&guest), Worker::of(&guest));
    assert_eq!(one.command("next", "{}"), answer("1"));
    let succession = succeed(&other, &other.module, &one.module);
    assert_eq!((succession, one.module.instances()), (Succession::default(), 1));
}

#[test]
fn instances_with_other_grants_do_not_go_on() {
    let worker = Worker::of(&aegis_guests::plain());
    let grants = Grants { secrets: ["stripe".to_owned()].into(), ..Grants::default() };
    let of = |grants: Grants| {
        Arc::new(granted(&worker, &aegis_guests::counter(), (json!({}), grants), Arc::new(NOTHING)))
    };
    let before = of(grants.clone());
    assert_eq!(ask(&worker, &before, "next"), answer("1"));
    let module = of(Grants::default());
    let succession = succeed(&worker, &module, &before);
    assert_eq!((succession, before.instances()), (Succession::default(), 1));
    let succession = succeed(&worker, &of(grants), &before);
    assert_eq!(succession, Succession { kept: 1, replaced: 0 });
}

#[test]
fn an_instance_that_sleeps_as_it_begins_is_given_up_at_its_deadline() {
    let worker = Worker::of(&aegis_guests::plain());
    let guest = with_system(aegis_guests::heir("1.0.0")).lifecycle("init", sleep());
    let module = beside(&worker, &guest, json!({}), 1);
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![0; 8] };
    let late = worker.tokio.block_on(async {
        let asked = async {
            let deadline = Instant::now() + Duration::from_millis(50);
            let health = worker.runtime.health(&module, deadline).await;
            let deadline = Instant::now() + Duration::from_millis(50);
            [health, worker.runtime.restore(&module, &handover, deadline).await]
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("nobody waits for an hour")
    });
    for late in late {
        assert!(matches!(&late, Err(CallError::Deadline { entry, .. }) if entry == "init"), "{late:?}");
    }
    assert_eq!(module.instances(), 0);
}

#[test]
fn what_an_instance_says_of_its_life_has_no_secrets() {
    let worker = Worker::of(&aegis_guests::plain());
    let telling = |interface: &str, function: &str| {
        let guest = aegis_guests::heir("1.0.0").function(interface, function, tell());
        let grants = Grants { reveal: ["stripe".to_owned()].into(), ..Grants::default() };
        Arc::new(granted(&worker, &guest, (json!({}), grants), Arc::new(Bank::default())))
    };
    let said = worker.tokio.block_on(worker.runtime.health(&telling("lifecycle", "health"), soon()));
    assert_eq!(refusal(said.unwrap_err()), (RefusalCode::Invalid, "[secret]".to_owned()));
    let module = telling("handover", "save");
    assert_eq!(ask(&worker, &module, "next"), answer("1"));
    assert_eq!(refusal(save(&worker, &module).unwrap_err()).1, "[secret]");
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![0; 8] };
    let module = telling("handover", "restore");
    let said = worker.tokio.block_on(worker.runtime.restore(&module, &handover, soon()));
    assert_eq!(refusal(said.unwrap_err()).1, "[secret]");
}

#[test]
fn an_instance_begins_before_it_is_called_and_only_once() {
    let worker = Worker::limited(&aegis_guests::counter(), CodeLimits::default());
    let module = beside(&worker, &aegis_guests::counter(), json!({"from": 100}), 2);
    let begin = || worker.tokio.block_on(worker.runtime.warm_up(&module, soon()));
    begin().unwrap();
    assert_eq!(module.instances(), 1);
    begin().unwrap();
    assert_eq!(module.instances(), 1, "there is one");
    assert_eq!(ask(&worker, &module, "next").unwrap().as_deref(), Some("101"));
    worker.tokio.block_on(worker.runtime.rehearse(&module, soon())).unwrap();
    assert_eq!(module.instances(), 1, "what only tries is gone again");
    assert_eq!(ask(&worker, &module, "next").unwrap().as_deref(), Some("102"));
}

#[test]
fn an_instance_that_only_tries_to_begin_is_not_told_that_it_ends() {
    let bank = Arc::new(Bank::default());
    let guest = aegis_guests::counter().lifecycle("drain", tally("drained"));
    let worker = Worker::with(&guest, CodeLimits::default(), Arc::<Bank>::clone(&bank));
    worker.tokio.block_on(worker.runtime.rehearse(&worker.module, soon())).unwrap();
    assert_eq!((bank.measured(), worker.module.instances()), (0, 0));
}

#[test]
fn an_instance_that_does_not_begin_is_told_and_none() {
    let worker = Worker::limited(&aegis_guests::counter(), CodeLimits::default());
    let picky = aegis_guests::counter().lifecycle("init", refuse("unavailable", "there is no key"));
    let module = beside(&worker, &picky, json!({}), 2);
    for begun in [
        worker.tokio.block_on(worker.runtime.warm_up(&module, soon())),
        worker.tokio.block_on(worker.runtime.rehearse(&module, soon())),
    ] {
        let told = begun.unwrap_err().to_string();
        assert_eq!(told, "init of module counter failed: it refused to begin: there is no key");
        assert_eq!(module.instances(), 0);
    }
}
