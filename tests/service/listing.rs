//! Records are found by every filter, in either order, each exactly once.

use callvault::{
    client::Client,
    domain::principal::Role,
    proto::v1::{subject_identifier::Identifier, *},
};
use futures_util::TryStreamExt;

use crate::harness::*;

pub(crate) fn everything() -> ListRecordsRequest {
    ListRecordsRequest {
        tenant_id: TENANT.to_owned(),
        ..Default::default()
    }
}

fn looking_for(query: RecordQuery) -> ListRecordsRequest {
    ListRecordsRequest {
        query: Some(query),
        ..everything()
    }
}

fn party(tel: &str, mailto: &str, external: &str, agent: &str) -> Party {
    Party {
        role: PartyRole::Customer.into(),
        tel: tel.to_owned(),
        mailto: mailto.to_owned(),
        external_subject_id: external.to_owned(),
        agent_id: agent.to_owned(),
        ..Default::default()
    }
}

/// Six records, `r0` to `r5` by their external ids, a minute apart.
async fn six(world: &World) {
    let mut first = String::new();
    for number in 0..6 {
        let mut d = descriptor();
        d.external_id = format!("r{number}");
        d.start_time = Some(at(1_700_000_000 + 60 * number));
        d.conversation_id = format!("c{}", number / 3);
        d.direction = if number < 2 {
            Direction::Inbound
        } else {
            Direction::Outbound
        }
        .into();
        if number == 3 {
            d.channel = Channel::Whatsapp.into();
        }
        d.parties = vec![party("+525512345678", "", "", "agent-7")];
        match number {
            1 => d.parties.push(party("+15551234567", "Jane@Example.com", "", "")),
            2 => d.parties.push(party("", "", "customer 9", "")),
            4 => d.labels.extend([
                ("team".to_owned(), "blue".to_owned()),
                ("x".to_owned(), String::new()),
            ]),
            5 => {
                d.age_flag = AgeFlag::Child.into();
                d.derived_from.clone_from(&first);
                d.parties.clear();
            }
            _ => {}
        }
        let record = world.put(d, format!("content {number}")).await;
        if number == 0 {
            first = record.record_id;
        }
    }
}

async fn found(reader: &Client, request: ListRecordsRequest) -> String {
    let records: Vec<Record> = reader.all_records(request).try_collect().await.unwrap();
    let names = records.into_iter().map(|r| r.descriptor.unwrap().external_id);
    names.collect::<Vec<_>>().join(" ")
}

fn by(identifier: Identifier) -> RecordQuery {
    RecordQuery {
        subject: Some(SubjectIdentifier {
            identifier: Some(identifier),
        }),
        ..Default::default()
    }
}

fn queries() -> Vec<(RecordQuery, &'static str)> {
    let labelled = |pairs: &[(&str, &str)]| RecordQuery {
        labels: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..Default::default()
    };
    vec![
        (RecordQuery::default(), "r0 r1 r2 r3 r4 r5"),
        (
            RecordQuery {
                kinds: vec![RecordKind::Artifact.into()],
                ..Default::default()
            },
            "r5",
        ),
        (
            RecordQuery {
                kinds: vec![1, 3],
                ..Default::default()
            },
            "r0 r1 r2 r3 r4 r5",
        ),
        (
            RecordQuery {
                kinds: vec![RecordKind::Message.into()],
                ..Default::default()
            },
            "",
        ),
        (
            RecordQuery {
                start_time_from: Some(at(1_700_000_060)),
                ..Default::default()
            },
            "r1 r2 r3 r4 r5",
        ),
        (
            RecordQuery {
                start_time_until: Some(at(1_700_000_060)),
                ..Default::default()
            },
            "r0",
        ),
        (
            RecordQuery {
                start_time_from: Some(at(1_700_000_060)),
                start_time_until: Some(at(1_700_000_180)),
                ..Default::default()
            },
            "r1 r2",
        ),
        (
            RecordQuery {
                conversation_id: "c1".to_owned(),
                ..Default::default()
            },
            "r3 r4 r5",
        ),
        (
            RecordQuery {
                conversation_id: "c9".to_owned(),
                ..Default::default()
            },
            "",
        ),
        (
            by(Identifier::Tel("tel:+52-55-1234-5678".to_owned())),
            "r0 r1 r2 r3 r4",
        ),
        (by(Identifier::Tel("+15551234567".to_owned())), "r1"),
        (by(Identifier::Tel("+15550000000".to_owned())), ""),
        (by(Identifier::Mailto("mailto:jane@EXAMPLE.com".to_owned())), "r1"),
        (by(Identifier::ExternalSubjectId("customer 9".to_owned())), "r2"),
        (
            RecordQuery {
                agent_id: "agent-7".to_owned(),
                ..Default::default()
            },
            "r0 r1 r2 r3 r4",
        ),
        (
            RecordQuery {
                direction: Direction::Inbound.into(),
                ..Default::default()
            },
            "r0 r1",
        ),
        (
            RecordQuery {
                direction: Direction::Internal.into(),
                ..Default::default()
            },
            "",
        ),
        (
            RecordQuery {
                channel: Channel::Whatsapp.into(),
                ..Default::default()
            },
            "r3",
        ),
        (labelled(&[("team", "blue")]), "r4"),
        (labelled(&[("team", "blue"), ("x", "")]), "r4"),
        (labelled(&[("team", "red")]), ""),
        (
            RecordQuery {
                states: vec![RecordState::Restricted.into()],
                ..Default::default()
            },
            "r5",
        ),
        (
            RecordQuery {
                states: vec![RecordState::Active.into()],
                ..Default::default()
            },
            "r0 r1 r2 r3 r4",
        ),
        (
            RecordQuery {
                conversation_id: "c1".to_owned(),
                agent_id: "agent-7".to_owned(),
                start_time_from: Some(at(1_700_000_200)),
                ..Default::default()
            },
            "r4",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_its_records_in_both_orders_and_all_page_sizes() {
    let world = World::start().await;
    six(&world).await;
    let reader = world.client(Role::Reader).await;
    for (query, expected) in queries() {
        let reversed: Vec<_> = expected.split(' ').rev().collect();
        for (order, expected) in [
            (Order::OldestFirst, expected),
            (Order::NewestFirst, &reversed.join(" ")),
            (Order::Unspecified, &reversed.join(" ")),
        ] {
            for page_size in [0, 1, 2] {
                let mut request = looking_for(query.clone());
                request.order = order.into();
                request.page_size = page_size;
                assert_eq!(
                    found(&reader, request).await,
                    expected,
                    "{query:?} {order:?} {page_size}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_queries_are_refused_by_their_field() {
    let world = World::start().await;
    let reader = world.client(Role::Reader).await;
    let nanos = prost_types::Timestamp {
        seconds: 0,
        nanos: 1_000_000_000,
    };
    let cases = [
        (
            RecordQuery {
                kinds: vec![1, 0],
                ..Default::default()
            },
            "query.kinds[1]",
        ),
        (
            RecordQuery {
                states: vec![0],
                ..Default::default()
            },
            "query.states[0]",
        ),
        (
            RecordQuery {
                start_time_from: Some(nanos),
                ..Default::default()
            },
            "query.start_time_from",
        ),
        (
            RecordQuery {
                start_time_from: Some(at(2)),
                start_time_until: Some(at(1)),
                ..Default::default()
            },
            "query.start_time_until",
        ),
        (
            RecordQuery {
                conversation_id: " ".to_owned(),
                ..Default::default()
            },
            "query.conversation_id",
        ),
        (
            RecordQuery {
                agent_id: "a\n".to_owned(),
                ..Default::default()
            },
            "query.agent_id",
        ),
        (
            RecordQuery {
                subject: Some(SubjectIdentifier::default()),
                ..Default::default()
            },
            "query.subject",
        ),
        (by(Identifier::Tel("5512345678".to_owned())), "query.subject.tel"),
        (by(Identifier::Mailto("jane".to_owned())), "query.subject.mailto"),
        (
            by(Identifier::ExternalSubjectId(String::new())),
            "query.subject.external_subject_id",
        ),
        (
            RecordQuery {
                labels: [("BAD KEY".to_owned(), String::new())].into(),
                ..Default::default()
            },
            "query.labels",
        ),
    ];
    for (query, field) in cases {
        let answer = reader.list_records(looking_for(query)).await;
        assert_eq!(why(answer), is("INVALID_FIELD", field));
    }
    for page_size in [-1, i32::MIN, 1001] {
        let request = ListRecordsRequest {
            page_size,
            ..everything()
        };
        assert_eq!(
            why(reader.list_records(request).await),
            is("INVALID_FIELD", "page_size")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_is_good_for_its_own_query_alone() {
    let world = World::start().await;
    six(&world).await;
    let reader = world.client(Role::Reader).await;
    let request = ListRecordsRequest {
        page_size: 2,
        ..everything()
    };
    let token = reader
        .list_records(request.clone())
        .await
        .unwrap()
        .next_page_token;
    assert!(!token.is_empty());
    let mut flipped = token.clone().into_bytes();
    flipped[3] = if flipped[3] == b'A' { b'B' } else { b'A' };
    let mut others: Vec<ListRecordsRequest> = ["x", "../../etc", "\u{1f4a9}", &"A".repeat(10_000)]
        .map(str::to_owned)
        .into_iter()
        .chain([String::from_utf8(flipped).unwrap()])
        .map(|page_token| ListRecordsRequest {
            page_token,
            ..request.clone()
        })
        .collect();
    let with_token = ListRecordsRequest {
        page_token: token,
        ..request
    };
    others.push(ListRecordsRequest {
        order: Order::OldestFirst.into(),
        ..with_token.clone()
    });
    others.push(ListRecordsRequest {
        tenant_id: OTHER.to_owned(),
        ..with_token.clone()
    });
    let query = RecordQuery {
        channel: Channel::Voice.into(),
        ..Default::default()
    };
    others.push(ListRecordsRequest {
        query: Some(query),
        ..with_token.clone()
    });
    for other in others {
        assert_eq!(
            why(reader.list_records(other).await),
            is("INVALID_FIELD", "page_token")
        );
    }
    assert!(reader.list_records(with_token).await.is_ok());
}
