//! Sources that are asked now and then.

use std::time::Duration;

use super::{Script, offer, proven};
use crate::fleet::{
    Exit, Look, Origin, Request, Role,
    tests::world::{App, Manner, Probe, World, nothing_new},
};

/// The application of the start, or another, that asks its sources every minute.
fn polling(digest: &str) -> App {
    let mut app = App::new(digest, 1);
    app.policy.reload.poll = Some(Duration::from_secs(60));
    app
}

/// A host that asks its sources every minute; its story so far is forgotten.
fn host() -> World<Script> {
    let mut world = proven(1);
    offer(&mut world, polling("second"));
    world.reload();
    world.run(20_000);
    world.story();
    world
}

fn changed() -> Look {
    Look { changed: vec!["order".to_owned()], ..nothing_new() }
}

fn away() -> Look {
    Look { away: vec!["silence".to_owned()], absent: 1, ..nothing_new() }
}

fn looks(story: &str) -> usize {
    story.matches(" Look gen ").count()
}

/// Times from one look to the next, whole minutes.
fn minutes(story: &str) -> Vec<u64> {
    let (mut now_ms, mut looks_ms) = (0, Vec::new());
    for line in story.lines() {
        now_ms = line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(now_ms);
        if line.contains(" Look gen ") {
            looks_ms.push(now_ms);
        }
    }
    looks_ms.windows(2).map(|pair: &[u64]| (pair[1] - pair[0] + 30_000) / 60_000).collect()
}

#[test]
fn what_was_published_comes_into_force_by_itself() {
    let mut world = host();
    world.fate.looks.push_back(Some(changed()));
    offer(&mut world, polling("third"));
    world.run(70_000);
    assert_eq!(world.fleet.digest(), "third");
    insta::assert_snapshot!(world.story().lines().take(8).collect::<Vec<_>>().join("\n"), @r#"
    79538 …
            spawn #6 Look gen 2 image 1
    79543 Looked { child: ChildId(6), look: Look { asked: 1, changed: ["order"], away: [], absent: 0 } }
            Notify(Reloading)
            spawn #7 Compile gen 3 image 1
    79544 #6 exited with 0
    79548 compiled third
            BindListeners { generation: 3 }
    "#);
    world.check_converged();
}

#[test]
fn as_long_as_nothing_is_new_nothing_happens_but_looks() {
    let mut world = host();
    world.run(600_000);
    let story = world.story();
    assert!((8..=11).contains(&looks(&story)), "{story}");
    assert!(!story.contains("Reload {"), "{story}");
}

#[test]
fn nobody_looks_unless_it_is_configured() {
    let mut world = proven(1);
    world.run(600_000);
    assert_eq!(looks(&world.story()), 0);
}

#[test]
fn what_was_found_bad_is_not_tried_again() {
    let mut world = host();
    world.fate.looks.push_back(Some(changed()));
    offer(&mut world, polling("third").manner(Manner::Crashes(1_000, Exit::Signal(6))));
    world.run(70_000);
    assert_eq!(world.fleet.digest(), "second");
    world.story();
    // Another source changes, and the set comes out the same.
    world.fate.looks.push_back(Some(changed()));
    offer(&mut world, polling("third"));
    world.run(70_000);
    assert_eq!(world.fleet.digest(), "second");
    let story = world.story();
    assert!(story.contains("this very set was found bad before"), "{story}");
}

#[test]
fn sources_that_do_not_answer_are_asked_ever_more_seldom_and_then_as_before() {
    let mut world = host();
    world.fate.looks.extend([Some(away()), None, Some(away()), Some(away())]);
    world.run(45 * 60_000);
    let story = world.story();
    let minutes = minutes(&story);
    assert!(matches!(minutes[..6], [2, 4, 7..=9, 14..=18, 1, 1]), "{minutes:?}");
    assert_eq!(story.matches("1 of 1 sources of modules cannot be asked: silence").count(), 1, "{story}");
}

#[test]
fn a_source_that_is_away_alone_slows_nobody_down() {
    let mut world = host();
    let one_of_two = Look { asked: 2, ..away() };
    world.fate.looks.extend([Some(one_of_two.clone()), Some(one_of_two)]);
    world.run(5 * 60_000);
    let story = world.story();
    assert_eq!(minutes(&story)[..3], [1, 1, 1], "{story}");
}

#[test]
fn a_rollout_takes_the_place_of_whoever_looks() {
    let mut world = host();
    world.fate.looks.push_back(Some(changed()));
    world.run_until("somebody looks", |world| {
        world.processes.values().any(|process| process.spawn.role == Role::Look)
    });
    offer(&mut world, polling("second"));
    world.reload();
    world.run(1_000);
    let story = world.story();
    assert_eq!(story.matches("Reload {").count(), 1, "the look was not heard: {story}");
    assert!(story.contains("kill #"), "{story}");
    world.check_converged();
}

#[test]
fn a_waiting_look_is_put_off_by_rollouts_and_resumes_after_them() {
    let mut world = host();
    for _ in 0..3 {
        world.run(30_000);
        world.fate.probes.push_back(Probe::Invalid);
        world.ask(Request::Reload { origin: Origin::Operator, mode: None });
    }
    assert_eq!(looks(&world.story()), 0);
    world.run(70_000);
    assert_eq!(looks(&world.story()), 1);
}
