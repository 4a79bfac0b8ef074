//! Writes under an `Idempotency-Key`.

use super::*;

fn key(fingerprint: &'static [u8]) -> Option<IdempotencyKey> {
    let fingerprint = Bytes::from_static(fingerprint);
    Some(IdempotencyKey { key: "scope/k".to_owned(), given: "k".to_owned(), fingerprint })
}

#[tokio::test]
async fn the_same_key_is_answered_once_and_replayed_after() {
    let scene = Scene::new().await;
    let create = |fingerprint| Request {
        idempotency: key(fingerprint),
        ..scene.request(Operation::Create { body: text(r#"{"text":"x"}"#) })
    };
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let (engine, request) = (scene.engine.clone(), create(b"f"));
        tasks.push(tokio::spawn(async move { engine.execute(request).await.unwrap() }));
    }
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    assert_eq!(replies.iter().filter(|reply| !reply.replayed).count(), 1);
    assert!(replies.iter().all(|reply| reply.body == replies[0].body && reply.sequence == 1));
    assert_eq!((scene.store.documents(), scene.counted(Counter::Replays)), (1, 9));
    let reused = scene.engine.execute(create(b"g")).await.unwrap_err();
    assert_eq!(reused.code, ProblemCode::IdempotencyKeyReused);
}

#[tokio::test]
async fn a_write_that_another_worker_makes_first_under_the_same_key_is_replayed() {
    let scene = Scene::new().await;
    for id in ["a", "b", "c"] {
        scene.create(&format!(r#"{{"id":"{id}","text":"x"}}"#)).await.unwrap();
    }
    let free = Precondition::default;
    let test = r#"[{"op":"test","path":"/text","value":"x"},{"op":"replace","path":"/text","value":"y"}]"#;
    for (number, (operation, precondition)) in [
        (remove("a"), free()),
        (merge("b", r#"{"rank":1}"#), if_match(1)),
        (remove("b"), if_match(2)),
        (Operation::Patch { id: "c".to_owned(), body: text(test) }, free()),
        (replace("d", r#"{"text":"x"}"#), absent()),
        (Operation::Create { body: text(r#"{"id":"e","text":"x","code":"e"}"#) }, free()),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("scope/{number}");
        let fingerprint = Bytes::from_static(b"f");
        let idempotency = Some(IdempotencyKey { key, given: String::new(), fingerprint });
        let request = Request { idempotency, precondition, ..scene.request(operation) };
        let first = scene.engine.execute(request.clone()).await.unwrap();
        scene.store.forget_a_key();
        let second = scene.engine.execute(request).await.unwrap();
        assert_eq!((first.replayed, second.replayed), (false, true), "{number}");
        assert_eq!((second.result, second.body), (first.result, first.body), "{number}");
    }
    let missing = Request { idempotency: key(b"f"), ..scene.request(remove("none")) };
    assert_eq!(scene.engine.execute(missing).await.unwrap_err().code, ProblemCode::NotFound);
}

#[tokio::test]
async fn what_is_replayed_shows_no_document_to_a_caller_who_may_not_read_it() {
    let scene = Scene::new().await;
    scene.create(r#"{"id":"a","text":"secret"}"#).await.unwrap();
    let minimal = |id: &str| format!(r#"{{"status":"ok","modelId":"{id}"}}"#);
    let create = |body: &str| Operation::Create { body: text(body) };
    for (number, (operation, expected)) in [
        (merge("a", r#"{"rank":1}"#), minimal("a")),
        (remove("a"), minimal("a")),
        (create(r#"{"id":"b","text":"secret","code":"b"}"#), minimal("b")),
        (
            create(r#"[{"id":"c","text":"secret","code":"c"},{"id":"d","text":"secret"}]"#),
            format!("[{},{}]", minimal("c"), minimal("d")),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let idempotency = key(b"f").map(|key| IdempotencyKey { key: format!("scope/{number}"), ..key });
        let reads = Request { idempotency, ..scene.request(operation) };
        let blind = Request { answer: Answer::Blind, ..reads.clone() };
        let first = scene.engine.execute(reads.clone()).await.unwrap();
        assert_ne!(first.body, expected, "{number}");
        // Once it is known before the write, and once the commit finds out.
        for forgets in [false, true] {
            if forgets {
                scene.store.forget_a_key();
            }
            let again = scene.engine.execute(blind.clone()).await.unwrap();
            assert_eq!((again.body.as_ref(), again.replayed), (expected.as_bytes(), true), "{number}");
            assert_eq!(again.result, first.result, "{number}");
        }
        assert_eq!(scene.engine.execute(reads).await.unwrap().body, first.body, "{number}");
    }
    let idempotency = key(b"f").map(|key| IdempotencyKey { key: "scope/minimal".to_owned(), ..key });
    let several = create(r#"[{"id":"e","text":"x"},{"id":"f","text":"x"}]"#);
    let blind = Request { idempotency, answer: Answer::Blind, ..scene.request(several) };
    let first = scene.engine.execute(blind.clone()).await.unwrap();
    assert_eq!(scene.engine.execute(blind).await.unwrap().body, first.body);
}

#[tokio::test]
async fn only_what_succeeded_is_kept_under_a_key() {
    let scene = Scene::new().await;
    let create =
        |body| Request { idempotency: key(b"f"), ..scene.request(Operation::Create { body: text(body) }) };
    assert_eq!(scene.engine.execute(create("{}")).await.unwrap_err().code, ProblemCode::Invalid);
    assert!(!scene.engine.execute(create(r#"{"text":"x"}"#)).await.unwrap().replayed);
}

#[tokio::test]
async fn an_update_that_changed_nothing_is_replayed_even_after_somebody_else_changed_something() {
    let scene = Scene::new().await;
    let created = scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    let again = || Request { idempotency: key(b"f"), ..scene.request(merge("a", r#"{"text":"x"}"#)) };
    let first = scene.engine.execute(again()).await.unwrap();
    assert_eq!(
        (first.result, &first.body, first.replayed),
        (Outcome::Found { revision: 1 }, &created.body, false)
    );
    scene.run(merge("a", r#"{"text":"newer"}"#)).await.unwrap();
    let second = scene.engine.execute(again()).await.unwrap();
    assert_eq!((&second.body, second.replayed), (&created.body, true));
    assert_eq!(json(&scene.read("a").await.unwrap())["text"], "newer");
}

#[tokio::test]
async fn a_key_whose_request_is_still_running_is_told_so() {
    let scene = Scene::new().await;
    scene.store.set_mood(Mood::Silent);
    let create = |deadline| Request {
        idempotency: key(b"f"),
        deadline,
        ..scene.request(Operation::Create { body: text(r#"{"text":"x"}"#) })
    };
    let (engine, request) = (scene.engine.clone(), create(later()));
    let first = tokio::spawn(async move { engine.execute(request).await });
    eventually("the write", || scene.store.writes_seen().len() == 1).await;
    let second = scene.engine.execute(create(soon())).await.unwrap_err();
    assert_eq!(second.code, ProblemCode::IdempotencyKeyInUse);
    scene.store.set_mood(Mood::Good);
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_write_waits_equally_long_for_the_store_with_a_key_and_without() {
    let mut impatient = config();
    impatient.limits.write_timeout = Duration::from_millis(50);
    let scene = Scene::with(impatient, MODULE).await;
    scene.store.set_mood(Mood::Deaf);
    let mut codes = Vec::new();
    for idempotency in [None, key(b"f")] {
        let create = Operation::Create { body: text(r#"{"text":"x"}"#) };
        let request = Request { idempotency, ..scene.request(create) };
        let latest = request.deadline - Duration::from_secs(5);
        let problem = scene.engine.execute(request).await.unwrap_err();
        codes.push((problem.code, problem.retry));
        assert!(Instant::now() < latest, "it waited until the end of the request");
    }
    // Nothing was sent yet when the store did not tell about the key.
    let unknown = (ProblemCode::WriteOutcomeUnknown, Retry::Never);
    assert_eq!(codes, [unknown, (ProblemCode::StoreUnavailable, Retry::After)]);
}
