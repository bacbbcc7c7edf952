//! What is taken although it strays from the seed document, because some old client does it.

use super::{Configuration, Deployment, check, documented::JOHN, documented::READ, posted};
use crate::support::dcams;

#[test]
fn what_old_clients_send_is_understood() {
    check(
        "tolerances",
        JOHN,
        &posted([
            (
                "email and status beside target, as the seed's table has them",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":"test@veratad.com","status":"PASS"}"#,
            ),
            (
                "nested wins",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":"nobody@veratad.com","status":"PASS","target":{"email":"test@veratad.com","status":"FAIL"}}"#,
            ),
            (
                "nested wins, also when what is flat makes no sense",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","email":1,"status":[],"target":{"email":"test@veratad.com","status":"PASS"}}"#,
            ),
            (
                "one of each",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","status":"FAIL","target":{"email":"test@veratad.com"}}"#,
            ),
            (
                "nested but empty: flat is taken",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","email":"test@veratad.com","target":{"email":""}}"#,
            ),
            (
                "flat beside PHP's empty target",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","email":"test@veratad.com","target":[]}"#,
            ),
            (
                "a status in lower case, upper case out",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"pass"}}"#,
            ),
            (
                "a status in mixed case",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"Pending"}}"#,
            ),
            (
                "white space around every text but the password",
                r#"{"user":" USERNAME ","pass":"PASSWORD","service":" updateStatus\n","target":{"email":"\ttest@veratad.com ","status":" PASS "}}"#,
            ),
            (
                "getStatus with a status in target changes nothing",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com","status":"FAIL"}}"#,
            ),
            (
                "getStatus with a flat status changes nothing, even if it is none",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","status":"NONSENSE","target":{"email":"test@veratad.com"}}"#,
            ),
            ("the status is what it was", READ),
            (
                "unknown keys are ignored",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","reference":"000","rules":null,"options":{"customer_link":true},"target":{"email":"test@veratad.com","status":"PASS","ssn":"000000000","age":"21+","fn":"Jane","test_key":[1,2.5e3,{"x":null}]}}"#,
            ),
            ("they are not stored either", READ),
            (
                "a byte order mark, and white space around the body",
                "\u{feff}\r\n\t {\"user\":\"USERNAME\",\"pass\":\"PASSWORD\",\"service\":\"getStatus\",\"target\":{\"email\":\"test@veratad.com\"}}\r\n\r\n",
            ),
            (
                "escapes",
                r#"{"\u0075ser":"\u0055SERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test\u0040veratad.com"}}"#,
            ),
        ]),
    );
}

#[test]
fn a_get_status_that_brings_a_status_is_counted_and_leaves_no_trace() {
    const COUNTED: &str = r#"dcams_tolerated_total{kind="status_on_get","#;
    for configuration in Configuration::ALL {
        let database = configuration.backend.database();
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
        let deployment = Deployment::start(configuration, database, &[]);
        let counted = || {
            let metrics = deployment.face().get("/metrics");
            // Of whatever account: a facade elsewhere learns whose it is only where it is trusted.
            let values = metrics.text().lines().filter(|line| line.starts_with(COUNTED));
            let values = values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
            values.sum::<u64>()
        };
        let history = || {
            let arguments = ["customer", "history", "test@veratad.com", "--account", "USERNAME"];
            dcams(&deployment.database, &arguments, "").ok()
        };

        let before = history();
        let reply = deployment.face().post(READ);
        assert_eq!(counted(), 0, "{configuration}");
        let with_status = READ.replace("}}", r#","status":"FAIL"}}"#);
        assert_eq!(deployment.face().post(with_status).body, reply.body, "{configuration}");
        assert_eq!(counted(), 1, "{configuration}");
        assert_eq!(history(), before, "{configuration}");
    }
}
