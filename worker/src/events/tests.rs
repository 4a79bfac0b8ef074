use super::*;

fn change(kind: ChangeKind) -> Change {
    Change { sequence: 17, model: "ORDER".into(), kind, time_ms: 1_767_225_599_007 }
}

#[test]
fn changes_are_framed_as_server_sent_events() {
    let body = Bytes::from_static(b"{\"n\":\n1,\"id\":\"a\"}");
    let changes = Some(Bytes::from_static(b"{\"n\":\n1}"));
    let frames = [
        tell(&change(ChangeKind::Put { id: "a".into(), revision: 1, body: body.clone(), changes: None }))
            .frame,
        tell(&change(ChangeKind::Put { id: "a".into(), revision: 2, body, changes })).frame,
        tell(&change(ChangeKind::Remove { id: "a".into(), revision: 2 })).frame,
        tell(&change(ChangeKind::Truncate)).frame,
        gap(3, 9),
    ];
    let text: Vec<&str> = frames.iter().map(|frame| std::str::from_utf8(frame).unwrap()).collect();
    insta::assert_snapshot!(text.concat(), @r#"
    id: 17
    event: CREATEORDER
    data: {"id":"ORDER-17","name":"CREATEORDER","type":"CREATE","modelName":"ORDER","modelId":"a","revision":1,"seq":17,"time":"2025-12-31T23:59:59.007Z","model":{"n": 1,"id":"a"}}

    id: 17
    event: UPDATEORDER
    data: {"id":"ORDER-17","name":"UPDATEORDER","type":"UPDATE","modelName":"ORDER","modelId":"a","revision":2,"seq":17,"time":"2025-12-31T23:59:59.007Z","model":{"n": 1,"id":"a"},"changes":{"n": 1}}

    id: 17
    event: DELETEORDER
    data: {"id":"ORDER-17","name":"DELETEORDER","type":"DELETE","modelName":"ORDER","modelId":"a","revision":2,"seq":17,"time":"2025-12-31T23:59:59.007Z","model":null}

    id: 17
    event: gap
    data: {"modelName":"ORDER","seq":17}

    id: 9
    event: gap
    data: {"from":3,"to":9}
    "#);
}
