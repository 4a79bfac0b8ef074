//! Two versions of a model's code in one generation: what one does says nothing about the other.

use std::sync::atomic::Ordering;

use aegis_domain::code::{CodeLimits, Grants};
use aegis_ipc::{
    board::{ModuleCounter, ModuleEntry},
    control::ToSupervisor,
};
use aegis_wasm::Terms;
use serde_json::json;

use super::house::{Answer, House};

const UNRULIES: &str = "/aegis/api/models/unrulies";
/// Faults in a row after which code is not called any more.
const FAULTS: usize = 5;
const CURRENT: &str = "current";
const TRIAL: &str = "trial";

fn terms() -> Terms {
    Terms { settings: json!({}), limits: CodeLimits::default(), grants: Grants::default() }
}

fn version(version: &str) -> Vec<u8> {
    aegis_guests::unruly().info("unruly", version).build()
}

/// A house with two versions of a model that does every wrong thing.
async fn house() -> House {
    House::of_trial((&version("1.0.0"), &version("2.0.0")), &terms()).await
}

async fn deed(house: &House, variant: &str, name: &str) -> Answer {
    let answer =
        house.ask(&format!("POST {UNRULIES}\naegis-variant: {variant}\n\n{{\"do\":\"{name}\"}}")).await;
    assert!(matches!(answer.status, 201 | 500 | 503), "{}", answer.body);
    answer
}

fn entry(house: &House, variant: &str) -> ModuleEntry {
    let (board, name) = (house.host.board, "unruly");
    let entry = if variant == TRIAL { board.module_on_trial(name) } else { board.module(name) };
    entry.unwrap()
}

fn counted(house: &House, variant: &str, counter: ModuleCounter) -> u64 {
    entry(house, variant).counter(counter).load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_version_that_keeps_failing_is_not_called_and_the_other_one_is() {
    for (failing, other) in [(TRIAL, CURRENT), (CURRENT, TRIAL)] {
        let house = house().await;
        for _ in 0..FAULTS {
            assert_eq!(deed(&house, failing, "trap").await.status, 500);
        }
        let refused = deed(&house, failing, "fine").await;
        assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("module-unavailable")));
        assert_eq!(refused.header("aegis-variant"), Some(failing));
        for _ in 0..2 * FAULTS {
            assert_eq!(deed(&house, other, "fine").await.status, 201, "{other} has done nothing");
        }
        let of = |variant| {
            [ModuleCounter::Openings, ModuleCounter::Denials, ModuleCounter::Traps]
                .map(|counter| counted(&house, variant, counter))
        };
        assert_eq!((of(failing), of(other)), ([1, 1, FAULTS as u64], [0, 0, 0]), "{failing} fails");
        assert_eq!(counted(&house, other, ModuleCounter::OpenUntil), 0);
    }
}

#[tokio::test]
async fn one_that_keeps_failing_still_does_when_it_becomes_the_only_one_and_is_counted_as_such() {
    let house = house().await;
    for _ in 0..FAULTS {
        assert_eq!(deed(&house, TRIAL, "trap").await.status, 500);
    }
    let promoted = house.adopt_components(8, &[&version("2.0.0")], &terms()).await;
    assert!(matches!(promoted, ToSupervisor::Adopted { generation: 8, .. }), "{promoted:?}");
    // Had it forgotten, one fault would say nothing.
    while deed(&house, CURRENT, "trap").await.status != 500 {}
    assert_eq!(deed(&house, CURRENT, "fine").await.status, 503);
    assert_eq!(counted(&house, CURRENT, ModuleCounter::Openings), 1);
    assert!(counted(&house, CURRENT, ModuleCounter::Denials) >= 1);
    assert_eq!(counted(&house, TRIAL, ModuleCounter::Openings), 1, "from before");
}
