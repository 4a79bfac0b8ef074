//! What people are told.

use aegis_ipc::operator::StopMode;

use super::{host, offer, proven};
use crate::fleet::{Exit, Request, tests::world::App};

#[test]
fn every_line_of_the_status_line() {
    let mut lines = Vec::new();
    let mut world = host(2);
    world.start();
    lines.push(world.fleet.summary(world.now_ms));
    world.run(25);
    lines.push(world.fleet.summary(world.now_ms));
    world.run(20_000);
    lines.push(world.fleet.summary(world.now_ms));
    offer(&mut world, App::new("second", 2));
    world.reload();
    world.run(1_000);
    lines.push(world.fleet.summary(world.now_ms));
    world.run(200_000);
    lines.push(world.fleet.summary(world.now_ms));
    world.hang(world.serving()[0]);
    world.die(world.store(), Exit::Signal(9));
    lines.push(world.fleet.summary(world.now_ms));
    world.run(7_200_000);
    lines.push(world.fleet.summary(world.now_ms));
    world.ask(Request::Drain);
    lines.push(world.fleet.summary(world.now_ms));
    world.run(1_000);
    lines.push(world.fleet.summary(world.now_ms));
    world.stop(StopMode::Graceful);
    lines.push(world.fleet.summary(world.now_ms));
    world.run(10_000);
    lines.push(world.fleet.summary(world.now_ms));
    insta::assert_snapshot!(lines.join("\n"), @r"
    starting · start (job 1): generation 1: validating the application
    gen 1 · 2/2 serving · 0 draining
    gen 1 · 2/2 serving · 0 draining
    gen 1 · 3/2 serving · 0 draining · reload (job 2): generation 2: one worker serves, to be judged in 2000 ms
    gen 2 · 2/2 serving · 0 draining · last reload done 3 min ago
    gen 2 · 2/2 serving · 0 draining · store down · last reload done 3 min ago
    gen 2 · 2/2 serving · 0 draining · last reload done 2 h ago
    gen 2 · drained on request · 2 draining · drain (job 3): draining all workers
    gen 2 · drained on request · 0 draining · last drain done just now
    stopping · 0 draining · stop (job 4): stopping: what is in flight is finished within the drain timeout
    stopped · last stop done just now
    ");
}

#[test]
fn status_tells_who_lives_and_who_died() {
    let mut world = proven(2);
    world.die(world.serving()[1], Exit::Signal(11));
    world.run(1_000);
    let status = world.fleet.status(world.now_ms);
    insta::assert_json_snapshot!(status, @r#"
    {
      "pid": 0,
      "version": "",
      "uptime_ms": 22000,
      "summary": "gen 1 · 2/2 serving · 0 draining",
      "listen": [],
      "generation": 1,
      "digest": "first",
      "notice": null,
      "deployed": [],
      "failing": [],
      "trials": [],
      "workers_wanted": 2,
      "workers": [
        {
          "slot": 0,
          "generation": 1,
          "pid": 103,
          "state": "serving",
          "uptime_ms": 21985,
          "connections": 0,
          "in_flight": 0,
          "requests": 0,
          "resident_bytes": 0,
          "lag": 0
        },
        {
          "slot": 1,
          "generation": 1,
          "pid": 105,
          "state": "serving",
          "uptime_ms": 1000,
          "connections": 0,
          "in_flight": 0,
          "requests": 0,
          "resident_bytes": 0,
          "lag": 0
        }
      ],
      "store": {
        "pid": 102,
        "state": "ready",
        "durable": 0,
        "epoch": 1,
        "restarts": 0,
        "disk_full": null
      },
      "jobs": [],
      "last_job": null,
      "deaths": [
        {
          "who": "worker 1",
          "pid": 104,
          "generation": 1,
          "reason": "crashed by SIGSEGV",
          "ago_ms": 1000
        }
      ],
      "loop_longest_us": 0
    }
    "#);
}
