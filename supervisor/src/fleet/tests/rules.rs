//! Single rules, each with the shortest life that shows it.

use std::time::Duration;

use aegis_ipc::{
    PROTOCOL_VERSION,
    operator::{StopMode, Verdict},
};

use super::{
    super::{
        Action, Asker, Event, Exit, Fleet, Origin, Request, Role, Scale,
        jobs::ASKERS_MAX,
        slots::{FILLS_MAX, REFILLS_MAX},
    },
    stories::{self, Script, host, proven, serving},
    world::{App, Manner, Parting, Probe, StoreSays, World, policy},
};

fn offer(world: &mut World<Script>, digest: &str, workers: u32) {
    stories::offer(world, App::new(digest, workers));
}

fn workers_starting(world: &World<Script>) -> usize {
    world.processes.values().filter(|process| process.is_present() && process.ready_ms.is_none()).count()
}

#[test]
fn reloads_while_one_runs_wait_together_and_share_a_verdict() {
    let mut world = proven(2);
    offer(&mut world, "second", 2);
    offer(&mut world, "third", 2);
    let first = world.reload();
    world.run(100);
    let (second, third) = (world.reload(), world.reload());
    assert_eq!(
        world.fleet.job(2).map(|job| job.step),
        Some("generation 2: one worker serves, to be judged in 2000 ms".to_owned())
    );
    assert_eq!(world.fleet.job(3).map(|job| job.step), Some("waits for job 2 to end".to_owned()));
    world.run(20_000);
    for asker in [first, second, third] {
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    }
    assert_eq!(world.fleet.status(world.now_ms).generation, 3, "two rollouts for three requests");
}

#[test]
fn request_of_another_kind_supersedes_the_waiting_one() {
    let mut world = proven(2);
    offer(&mut world, "second", 2);
    let running = world.reload();
    let waiting = world.reload();
    let restart = world.ask(Request::Restart { slot: Some(0) });
    let wider = world.ask(Request::Restart { slot: None });
    assert_eq!(world.verdict(waiting), Some(&Verdict::Superseded));
    world.run(20_000);
    for asker in [running, restart, wider] {
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    }
}

#[test]
fn children_of_the_next_image_are_understood_on_the_way_back() {
    let mut world = serving(2);
    let child = world.serving()[0];
    let worker = &world.fleet.workers[&child];
    let (pid, generation) = (worker.pid, worker.generation);
    world.report(Event::Hello { child, protocol: PROTOCOL_VERSION + 1, pid, generation });
    assert_eq!(world.serving().len(), 2);
}

#[test]
fn reload_of_the_same_digest_changes_nothing() {
    let mut world = proven(2);
    let before = world.serving();
    let asker = world.reload();
    world.run(5_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Unchanged));
    assert_eq!(world.serving(), before);
}

#[test]
fn reload_asked_for_during_the_start_waits_for_it() {
    let mut world = host(2);
    world.start();
    let asker = world.reload();
    let refused = world.scale(3);
    assert!(world.checks.refusal(refused).is_some());
    world.run(5_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Unchanged));
}

#[test]
fn nonsense_is_refused_with_what_was_expected() {
    let mut world = serving(2);
    let mut refusals = Vec::new();
    for request in
        [Request::Scale(Scale::To(0)), Request::Scale(Scale::To(113)), Request::Restart { slot: Some(7) }]
    {
        let asker = world.ask(request);
        refusals.push(world.checks.refusal(asker).unwrap_or_default().to_owned());
    }
    world.stop(StopMode::Patient);
    let late = world.reload();
    refusals.push(world.checks.refusal(late).unwrap_or_default().to_owned());
    insta::assert_snapshot!(refusals.join("\n"), @r"
    workers: found 0, expected 1 to 112
    workers: found 113, expected 1 to 112
    there is no slot 7, only 0, 1
    the host is stopping
    ");
}

#[test]
fn reasons_of_deaths_are_cut_so_that_a_hundred_of_them_can_be_told() {
    let mut world = serving(2);
    for _ in 0..200 {
        world.fleet.tally("compile".to_owned(), 1, 1, "ü".repeat(20_000));
    }
    let status = world.fleet.status(world.now_ms);
    assert_eq!(status.deaths.len(), 100);
    assert!(status.deaths[0].reason.len() < 600 && status.deaths[0].reason.ends_with("ü…"));
}

#[test]
fn askers_of_one_job_are_bounded() {
    let mut world = serving(1);
    offer(&mut world, "second", 1);
    world.reload();
    let askers: Vec<Asker> = (0..=ASKERS_MAX).map(|_| world.reload()).collect();
    assert_eq!(world.checks.refusal(askers[ASKERS_MAX - 1]), None);
    assert!(world.checks.refusal(askers[ASKERS_MAX]).is_some_and(|message| message.contains("1024")));
}

#[test]
fn no_more_than_two_start_at_once_after_crashes_and_eight_by_plan() {
    let mut world = serving(2);
    world.scale(12);
    assert_eq!(workers_starting(&world), FILLS_MAX);
    world.run(1_000);
    assert_eq!(world.serving().len(), 12);
    for child in world.serving() {
        world.die(child, Exit::Signal(11));
        assert!(workers_starting(&world) <= REFILLS_MAX);
    }
    world.run(30_000);
    assert_eq!(world.serving().len(), 12);
}

#[test]
fn storm_of_kills_from_outside_is_answered_at_once_and_blames_no_generation() {
    let mut world = proven(4);
    for round in 0..200 {
        let serving = world.serving();
        world.die(serving[round % serving.len()], Exit::Signal(9));
        world.run(100);
        assert_eq!(world.serving().len(), 4, "back within 100 ms, every time");
    }
    assert!(world.story().matches("crash loop").count() == 0);
}

#[test]
fn worker_that_somebody_signals_is_replaced_without_any_fault() {
    let mut world = proven(2);
    let child = world.serving()[0];
    world.signal_to_drain(child);
    world.run(100);
    assert_eq!(world.serving().len(), 2);
    world.run(1_000);
    let deaths = world.fleet.status(world.now_ms).deaths;
    assert_eq!(deaths.first().map(|death| death.reason.as_str()), Some("drained by its own will"));
}

#[test]
fn stop_of_the_supervisor_is_blamed_on_nobody() {
    for freeze in [World::freeze_supervisor, World::freeze_machine] {
        let mut world = proven(3);
        let before = world.serving();
        freeze(&mut world, 45_000);
        world.run(5_000);
        assert_eq!(world.serving(), before, "{}", world.story());
    }
}

#[test]
fn worker_that_hangs_after_a_stop_of_the_supervisor_is_still_found() {
    let mut world = proven(2);
    let child = world.serving()[0];
    world.freeze_supervisor(45_000);
    world.hang(child);
    world.run(12_000);
    assert!(!world.processes.contains_key(&child));
    assert_eq!(world.serving().len(), 2);
}

#[test]
fn worker_that_hangs_while_it_drains_is_killed() {
    let mut world = proven(2);
    let child = world.serving()[0];
    world.stop(StopMode::Patient);
    assert!(world.exit.is_none());
    world.fate.partings.clear();
    let mut world = proven(2);
    world.fate.partings = [Parting::Never, Parting::Never].into();
    world.stop(StopMode::Patient);
    world.hang(child);
    world.run(11_000);
    assert!(!world.processes.contains_key(&child), "no sign of life for ten seconds");
    assert_eq!(world.processes.len(), 2, "the other one may take as long as it likes");
}

#[test]
fn canary_that_falls_silent_is_not_judged_good() {
    let mut world = proven(2);
    offer(&mut world, "second", 2);
    world.fate.workers = [Manner::Hangs(10, 60_000)].into();
    let asker = world.reload();
    world.run(20_000);
    // Suspected after two seconds, so the judgement at the end of the soak, at two seconds too, must not overlook it.
    let verdict = world.verdict(asker).cloned();
    assert!(matches!(verdict, Some(Verdict::RolledBack { .. })), "{verdict:?}");
    world.run(60_000);
    world.check_converged();
}

#[test]
fn surge_makes_a_wave_as_wide() {
    let mut world = proven(6);
    let mut app = App::new("second", 6);
    app.policy.surge = 2;
    world.fate.probes.push_back(app.clone().found());
    world.reload();
    world.run(5_000);
    app.digest = "third".to_owned();
    world.fate.probes.push_back(app.found());
    world.reload();
    world.run_until("the wave is there", |world| workers_starting(world) == 2);
    world.run(10_000);
    world.check_converged();
}

#[test]
fn wave_waits_when_too_many_drain() {
    let mut world = proven(8);
    offer(&mut world, "second", 8);
    world.fate.partings = (0..40).map(|_| Parting::Never).collect();
    world.reload();
    world.run(2_300);
    let leaving =
        |world: &World<Script>| world.processes.values().filter(|process| process.is_leaving).count();
    assert_eq!(leaving(&world), 8, "all old ones drain, and as many may");
    offer(&mut world, "third", 8);
    world.reload();
    world.run(2_500);
    assert_eq!(leaving(&world), 8 + 1, "only the canary's predecessor");
    world.run(60_000);
    world.check_converged();
}

#[test]
fn live_count_lasts_until_the_next_reload() {
    let mut world = proven(2);
    world.scale(5);
    world.run(1_000);
    let same = world.reload();
    world.run(5_000);
    assert_eq!((world.verdict(same), world.serving().len()), (Some(&Verdict::Unchanged), 5));
    offer(&mut world, "second", 2);
    world.reload();
    world.run(10_000);
    assert_eq!(world.serving().len(), 2);
}

#[test]
fn scale_during_the_soak_keeps_the_canary() {
    let mut world = proven(4);
    offer(&mut world, "second", 4);
    let reload = world.reload();
    world.run(500);
    assert_eq!(world.serving().len(), 5);
    let scale = world.scale(1);
    assert_eq!(world.serving().len(), 2, "one slot with its worker and the canary");
    world.run(1);
    assert_eq!(world.verdict(scale), Some(&Verdict::Done), "the others accept no more");
    world.run(10_000);
    assert_eq!(world.verdict(reload), Some(&Verdict::Done));
    assert_eq!(world.serving().len(), 1, "who scales meanwhile wants that");
}

#[test]
fn scale_that_does_not_come_true_is_taken_back() {
    let mut world = proven(2);
    world.fate.workers = (0..100).map(|_| Manner::NeverReady).collect();
    let asker = world.scale(4);
    world.run(60_000);
    insta::assert_debug_snapshot!(world.verdict(asker), @r#"
    Some(
        RolledBack {
            reason: "2 of 4 workers serve in time; back to 2",
        },
    )
    "#);
    assert_eq!(world.processes.len(), 3);
}

#[test]
fn fewer_never_means_none() {
    let mut world = serving(2);
    for _ in 0..3 {
        world.ask(Request::Scale(Scale::Fewer));
    }
    assert_eq!(world.fleet.status(world.now_ms).workers_wanted, 1);
    world.ask(Request::Scale(Scale::More));
    assert_eq!(world.fleet.status(world.now_ms).workers_wanted, 2);
}

#[test]
fn scaling_down_takes_slots_where_nobody_serves_first_and_then_the_youngest() {
    let mut world = proven(3);
    let oldest = world.serving();
    world.die(oldest[1], Exit::Signal(11));
    world.run(100);
    world.fate.workers = [Manner::NeverReady].into();
    world.die(oldest[0], Exit::Signal(11));
    world.scale(2);
    assert!(world.serving().contains(&oldest[2]), "the one that is left of the first");
    assert_eq!(world.serving().len(), 2, "the slot where nobody serves was given up");
    world.scale(1);
    assert_eq!(world.serving(), [oldest[2]], "the youngest was given up");
}

#[test]
fn a_store_that_takes_too_long_to_prepare_is_told_with_the_setting_that_gives_it_more_time() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.store = StoreSays::Nothing;
    stories::offer(&mut world, app);
    let asker = world.reload();
    world.run(30_000);
    let Some(Verdict::Rejected { reasons }) = world.verdict(asker) else {
        panic!("{:?}", world.verdict(asker))
    };
    insta::assert_snapshot!(reasons.join("\n"), @"the store did not answer within 20 s (reload.probe_timeout) whether the generation can start; a field that becomes unique needs longer the more documents its model has");
}

#[test]
fn every_worker_gets_its_own_recycling_point() {
    let mut fleet_policy = policy(20);
    fleet_policy.recycle.requests_max = Some(1_000);
    let mut world = World::new(20, Script { workers_wanted: 20, ..Script::default() });
    let mut app = App::new("first", 20);
    app.policy = fleet_policy;
    world.fate.probes.push_back(app.found());
    world.start();
    world.run(2_000);
    let points: std::collections::BTreeSet<u64> =
        world.fleet.workers.values().filter_map(|worker| worker.requests_max).collect();
    assert!(points.len() > 10, "{points:?}");
    assert!(points.iter().all(|point| (900..=1_100).contains(point)), "{points:?}");
}

#[test]
fn last_good_is_written_only_when_it_has_proved_itself() {
    let mut world = serving(1);
    assert_eq!(world.last_good, None, "one second is no proof");
    world.run(10_000);
    assert_eq!(world.last_good.as_ref().map(|app| app.digest.as_str()), Some("first"));
    offer(&mut world, "second", 1);
    world.reload();
    world.run(5_000);
    assert_eq!(
        world.last_good.as_ref().map(|app| app.digest.as_str()),
        Some("second"),
        "the canary was the proof"
    );
}

#[test]
fn generation_that_worked_for_long_is_not_gone_back_from() {
    let mut world = proven(2);
    offer(&mut world, "second", 2);
    world.reload();
    world.run(700_000);
    for _ in 0..12 {
        if let Some(child) = world.serving().first() {
            world.die(*child, Exit::Signal(11));
        }
        world.run(10);
    }
    world.run(60_000);
    assert_eq!(world.fleet.status(world.now_ms).generation, 2);
    assert_eq!(world.serving().len(), 2);
}

#[test]
fn death_tally_is_bounded_and_newest_first() {
    let mut world = proven(1);
    for _ in 0..150 {
        world.die(world.serving()[0], Exit::Signal(9));
        world.run(100);
    }
    let deaths = world.fleet.status(world.now_ms).deaths;
    assert_eq!(deaths.len(), 100);
    assert!(deaths.windows(2).all(|pair| pair[0].ago_ms <= pair[1].ago_ms));
}

#[test]
fn ended_jobs_can_be_asked_for() {
    let mut world = serving(1);
    world.scale(2);
    world.run(1_000);
    insta::assert_debug_snapshot!(world.fleet.job(2), @r#"
    Some(
        Job {
            job: 2,
            kind: "scale",
            step: "from 1 to 2 workers",
            generation: 1,
            verdict: Some(
                Done,
            ),
        },
    )
    "#);
    assert_eq!(world.fleet.job(99), None);
}

#[test]
fn stale_and_unknown_events_change_nothing() {
    let mut world = proven(2);
    let child = super::super::ChildId(9_999);
    let before = world.fleet.status(world.now_ms);
    for event in [
        Event::Ready { child },
        Event::Bye { child },
        Event::Exited { child, exit: Exit::Code(0) },
        Event::SpawnFailed { child, reason: "x".to_owned() },
        Event::Prepared { child, generation: 1 },
        Event::Refused { child, generation: 9, reasons: Vec::new() },
        Event::ListenersFailed { generation: 9, reasons: Vec::new() },
        Event::LastGoodMissing { generation: 9, reason: "x".to_owned() },
        Event::UpgradeFailed { reasons: Vec::new() },
        Event::Traffic(Vec::new()),
        Event::Start,
    ] {
        world.report(event);
    }
    assert_eq!(world.story().matches("spawn").count(), 0);
    assert_eq!(world.fleet.status(world.now_ms), before);
}

#[test]
fn board_has_room_for_all_and_not_more() {
    let mut world = serving(1);
    world.fate.partings = (0..2_000).map(|_| Parting::Never).collect();
    for round in 0..6 {
        world.scale(if round % 2 == 0 { 100 } else { 1 });
        world.run(600);
    }
    // Cells are checked by the world at each start; what does not fit waits for those that drain.
    assert!(world.processes.len() <= aegis_ipc::board::CELLS + 1);
    world.scale(100);
    world.run(60_000);
    assert_eq!(world.serving().len(), 100);
}

#[test]
fn automatic_reload_waits_like_any_other_but_a_person_makes_it_a_deliberate_one() {
    let mut world = proven(1);
    offer(&mut world, "second", 1);
    world.reload();
    world.ask(Request::Reload { origin: Origin::Automatic, mode: None });
    let person = world.reload();
    // The waiting probe finds a set that is found bad while it waits: only the person's word lets it be tried again.
    world.fleet.remember_bad("third".to_owned(), "it was".to_owned());
    offer(&mut world, "third", 1);
    world.run(20_000);
    assert_eq!(world.verdict(person), Some(&Verdict::Done));
}

#[test]
fn a_host_that_was_drained_is_not_woken_by_a_change_that_nobody_asked_for() {
    let mut world = proven(1);
    offer(&mut world, "second", 1);
    world.ask(Request::Drain);
    world.run(1_000);
    world.story();
    let automatic = Request::Reload { origin: Origin::Automatic, mode: None };
    world.report(Event::Request { asker: None, request: automatic.clone() });
    world.run(10_000);
    assert!(world.serving().is_empty() && world.processes.len() == 1, "only the store is there");
    let asker = world.ask(automatic);
    let told = "what changed in the app is not taken up: all workers were drained on request";
    assert!(format!("{:?}", world.verdict(asker)).contains(&format!("Rejected {{ reasons: [\"{told}")));
    assert!(world.story().contains(&format!("Warn: {told}")));
    let person = world.reload();
    world.run(20_000);
    assert_eq!(world.verdict(person), Some(&Verdict::Done));
    assert_eq!(world.fleet.status(world.now_ms).generation, 2);
}

#[test]
fn signals_are_obeyed_without_anybody_who_waits() {
    let mut fleet = Fleet::new(policy(1), 1, 0);
    let actions = fleet.on(1, Event::Start);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Spawn(spawn) if spawn.role == Role::Compile))
    );
    let actions =
        fleet.on(2, Event::Request { asker: None, request: Request::Stop { mode: StopMode::Graceful } });
    assert!(actions.iter().any(|action| matches!(action, Action::Kill { .. })));
    assert!(!actions.iter().any(|action| matches!(action, Action::Accepted { .. })));
}

#[test]
fn timeouts_are_those_of_the_generation_that_is_started() {
    let mut world = proven(1);
    let mut app = App::new("second", 1).manner(Manner::Slow(15_000));
    app.policy.ready_timeout = Duration::from_secs(20);
    world.fate.probes.push_back(app.found());
    let patient = world.reload();
    world.run(40_000);
    assert_eq!(world.verdict(patient), Some(&Verdict::Done));
}

#[test]
fn siblings_look_at_their_queue_when_a_worker_leaves() {
    let mut world = proven(3);
    let serving = world.serving();
    let exited = Event::Exited { child: serving[0], exit: Exit::Signal(11) };
    world.processes.remove(&serving[0]);
    let actions = world.fleet.on(world.now_ms, exited);
    let poked: Vec<&Action> = actions.iter().filter(|action| matches!(action, Action::Poke { .. })).collect();
    assert_eq!(poked, [&Action::Poke { child: serving[1] }, &Action::Poke { child: serving[2] }]);
}

#[test]
fn store_that_comes_back_during_a_rollout_is_asked_again() {
    let mut world = proven(3);
    offer(&mut world, "second", 3);
    let asker = world.reload();
    world.run(500);
    world.story();
    world.die(world.store(), Exit::Signal(9));
    world.run(500);
    assert_eq!(world.story().matches("Prepare {").count(), 1);
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn store_that_comes_back_with_a_refusal_rolls_back() {
    let mut world = proven(3);
    offer(&mut world, "second", 3);
    let asker = world.reload();
    world.run(500);
    if let Some(app) = world.bundles.get_mut(&2) {
        app.store = StoreSays::No;
    }
    world.die(world.store(), Exit::Signal(9));
    world.run(10_000);
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })), "{:?}", world.verdict(asker));
    world.check_converged();
}

#[test]
fn last_good_that_cannot_be_written_is_told_and_stops_nothing() {
    let mut world = proven(1);
    world.report(Event::LastGoodNotWritten { generation: 1, reason: "disk full".to_owned() });
    insta::assert_snapshot!(world.story(), @r#"
    21000 LastGoodNotWritten { generation: 1, reason: "disk full" }
            Error: generation 1 could not be kept as last good: disk full
    "#);
    world.report(Event::PreviousNotWritten { generation: 1, reason: "disk full".to_owned() });
    insta::assert_snapshot!(world.story(), @r#"
    21000 PreviousNotWritten { generation: 1, reason: "disk full" }
            Error: generation 1 could not be kept for a rollback to it: disk full
    "#);
    assert_eq!(world.serving().len(), 1);
}

#[test]
fn helper_that_hangs_is_killed_and_the_reload_rejected() {
    let mut world = proven(1);
    world.fate.probes.push_back(Probe::Hangs);
    let asker = world.reload();
    world.run(30_000);
    insta::assert_debug_snapshot!(world.verdict(asker), @r#"
    Some(
        Rejected {
            reasons: [
                "the compile helper gave no answer: crashed by SIGKILL (did not end in time)",
            ],
        },
    )
    "#);
    world.check_converged();
}
