//! What is tolerated is counted, and what is in order is not.

use http::Request;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::support::{Face, SAMPLE, post};
use crate::{
    endpoint::{PATH, PATH_WITH_SLASH},
    tolerances::{ACCOUNTS, Needed, OTHER, Tolerance, Tolerances, UNKNOWN},
};

#[tokio::test]
async fn a_request_as_it_should_be_is_not_counted() {
    let face = Face::new();
    face.post(SAMPLE).await;
    face.post(
        SAMPLE
            .replace("updateStatus", "getStatus")
            .replace(r#""status""#, r#""x""#),
    )
    .await;
    let declared = Request::post(PATH).header("content-type", "Application/JSON ; charset=utf-8");
    face.send(declared.body(SAMPLE.into()).unwrap()).await;
    assert_eq!(face.tolerated(), []);
}

#[tokio::test]
async fn each_tolerance_in_a_body_is_counted_by_its_kind() {
    let head = r#""user":"USERNAME","pass":"PASSWORD","service""#;
    for (body, kinds) in [
        (
            format!(r#"{{{head}:"getStatus","target":{{"email":"a@b.c","status":"PASS"}}}}"#),
            &["status_on_get"][..],
        ),
        (
            format!(r#"{{{head}:"getStatus","target":{{"email":"a@b.c"}},"status":"PASS"}}"#),
            &["status_on_get"],
        ),
        (
            format!(r#"{{{head}:"getStatus","target":{{"email":"a@b.c","status":""}}}}"#),
            &[],
        ),
        (
            format!(r#"{{{head}:"updateStatus","email":"a@b.c","status":"PASS"}}"#),
            &["flat_email", "flat_status"],
        ),
        (
            format!(r#"{{{head}:"updateStatus","email":"a@b.c","target":{{"email":"a@b.c","status":"Pass"}}}}"#),
            &["status_case"],
        ),
        (
            format!(r#"{{{head}:"getStatus","target":[],"email":"a@b.c"}}"#),
            &["empty_target_array", "flat_email"],
        ),
        (format!("\u{feff}{SAMPLE}"), &["bom"]),
        (
            format!(
                r#"{{{head}:"createOrUpdateCustomer","reference":1,"target":{{"email":"a@b.c","zip":6614,"documents":[]}}}}"#
            ),
            &["empty_documents_array", "number_as_text"],
        ),
        (
            format!(
                r#"{{{head}:"createOrUpdateCustomer","target":{{"email":"a@b.c","dob":"19700101","documents":{{"front":"YQ","back":"YWI"}}}}}}"#
            ),
            &["image_padding"],
        ),
        (
            format!(
                r#"{{{head}:"createOrUpdateCustomer","target":{{"email":"a@b.c","documents":{{"front":"YQ=\r\n=","back":"Y Q=="}}}}}}"#
            ),
            &["image_white_space"],
        ),
        (
            format!(
                r#"{{{head}:"createOrUpdateCustomer","target":{{"email":"a@b.c","status":"x","documents":{{"front":"\/w==","back":null}}}}}}"#
            ),
            &[],
        ),
    ] {
        let face = Face::new();
        assert_eq!(face.post(body.clone()).await.summary(), "200", "{body}");
        let counted: Vec<_> = kinds.iter().map(|kind| (*kind, 1)).collect();
        assert_eq!(face.tolerated(), counted, "{body}");
    }
}

#[tokio::test]
async fn any_content_type_is_served_and_counted() {
    for declared in [
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; charset=utf-8"),
        Some("application/json5"),
        Some(""),
        None,
    ] {
        let face = Face::new();
        let mut request = Request::post(PATH);
        if let Some(declared) = declared {
            request = request.header("content-type", declared);
        }
        let reply = face.send(request.body(SAMPLE.into()).unwrap()).await;
        assert_eq!(reply.summary(), "200", "{declared:?}");
        assert_eq!(face.tolerated(), [("content_type", 1)], "{declared:?}");
    }
}

#[tokio::test]
async fn a_trailing_slash_is_served_and_counted() {
    let face = Face::new();
    let reply = face
        .send(post().uri(PATH_WITH_SLASH).body(SAMPLE.into()).unwrap())
        .await;
    assert_eq!(reply.summary(), "200");
    assert_eq!(face.tolerated(), [("trailing_slash", 1)]);
}

/// What was counted of one account and kind.
fn counted(recorder: &PrometheusRecorder, kind: &str, account: &str) -> Option<u64> {
    let series = format!(r#"dcams_tolerated_total{{kind="{kind}",account="{account}"}} "#);
    let metrics = recorder.handle().render();
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[test]
fn all_kinds_are_there_before_the_first_request() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, Tolerances::register);
    for tolerance in Tolerance::ALL {
        assert_eq!(counted(&recorder, tolerance.kind(), UNKNOWN), Some(0), "{tolerance:?}");
    }
}

#[test]
fn accounts_are_told_apart_up_to_a_bound() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let tolerances = Tolerances::register();
        let needed = Needed::default();
        tolerances.count(&needed, Some("in order"));
        needed.note(Tolerance::Bom);
        needed.note(Tolerance::Bom);
        tolerances.count(&needed, None);
        for round in 0..2 {
            for number in 0..ACCOUNTS + 5 {
                tolerances.count(&needed, Some(&format!("shop {number}")));
            }
            needed.note(Tolerance::FlatEmail);
            assert_eq!(counted(&recorder, "bom", OTHER), Some(5 * (round + 1)));
        }
    });
    assert_eq!(counted(&recorder, "bom", UNKNOWN), Some(1));
    assert_eq!(counted(&recorder, "bom", "in order"), None);
    for (number, count) in [(0, Some(2)), (ACCOUNTS - 1, Some(2)), (ACCOUNTS, None)] {
        assert_eq!(counted(&recorder, "bom", &format!("shop {number}")), count, "{number}");
    }
    assert_eq!(counted(&recorder, "flat_email", "shop 0"), Some(1));
    assert_eq!(counted(&recorder, "flat_email", OTHER), Some(5));
    let metrics = recorder.handle().render();
    let series = metrics
        .lines()
        .filter(|line| line.starts_with(r#"dcams_tolerated_total{kind="bom""#));
    assert_eq!(series.count(), ACCOUNTS + 2);
}
