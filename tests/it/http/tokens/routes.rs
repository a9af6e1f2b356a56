//! Every route by every sort of token.

use std::collections::BTreeSet;
use std::time::Duration;

use rowlock::model::{Action, ApiToken};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::tour::described;
use super::{Guarded, SOON};
use crate::harness::wait_until;

/// What a token of other queues is answered.
#[derive(Clone, Copy, Debug)]
enum Foreign {
    Forbidden,
    NotThere,
    /// A list, by its key, without anything in it.
    Empty(&'static str),
}

/// A request to a route.
struct Case {
    method: &'static str,
    route: &'static str,
    path: String,
    body: Value,
    action: Action,
    foreign: Foreign,
}

/// A request to every route that is not open, about things of the queue `mine`.
async fn cases(guarded: &Guarded) -> Vec<Case> {
    let job = |kind: &str| json!({"kind": kind, "queue": "mine"});
    let id = guarded.enqueue(job("shown")).await;
    let graph = json!({"workflow": "w", "jobs": [job("a"), job("b")]});
    let workflow = guarded.post(&guarded.everything, "/v1/workflows", graph.clone()).await;
    let workflow = workflow.json(201)["workflow"].as_str().expect("an id").to_owned();
    let (worker, _) = guarded.worker("mine").await;
    let none = Value::Null;
    let finish = json!({"worker": worker, "executions": []});
    let ask = json!({"worker": worker, "queues": ["mine"]});
    let (enqueue, work) = (Action::Enqueue, Action::Work);
    let (operate, observe) = (Action::Operate, Action::Observe);
    use Foreign::{Empty, Forbidden, NotThere};
    let rows = [
        ("POST", "/v1/jobs", &job("new"), enqueue, Forbidden),
        ("POST", "/v1/workflows", &graph, enqueue, Forbidden),
        ("POST", "/v1/acquire", &ask, work, Forbidden),
        ("POST", "/v1/executions/complete", &finish, work, Forbidden),
        ("POST", "/v1/executions/fail", &finish, work, Forbidden),
        ("POST", "/v1/executions/snooze", &finish, work, Forbidden),
        ("POST", "/v1/executions/release", &finish, work, Forbidden),
        ("POST", "/v1/workers/{id}/heartbeat", &json!({"executions": []}), work, Forbidden),
        ("POST", "/v1/jobs/{id}/reprioritize", &json!({"priority": 1}), operate, NotThere),
        ("POST", "/v1/jobs/{id}/cancel", &none, operate, NotThere),
        ("POST", "/v1/jobs/{id}/retry", &none, operate, NotThere),
        ("POST", "/v1/workflows/{id}/cancel", &none, operate, NotThere),
        ("POST", "/v1/workflows/{id}/retry", &none, operate, NotThere),
        ("POST", "/v1/queues/{name}/pause", &none, operate, Forbidden),
        ("POST", "/v1/queues/{name}/resume", &none, operate, Forbidden),
        ("GET", "/v1/jobs", &none, observe, Empty("jobs")),
        ("GET", "/v1/jobs/{id}", &none, observe, NotThere),
        ("GET", "/v1/jobs/{id}/inputs", &none, observe, NotThere),
        ("GET", "/v1/jobs/{id}/explain", &none, observe, NotThere),
        ("GET", "/v1/workflows", &none, observe, Empty("workflows")),
        ("GET", "/v1/workflows/{id}", &none, observe, NotThere),
        ("GET", "/v1/workers", &none, observe, Empty("workers")),
        ("GET", "/v1/queues", &none, observe, Empty("queues")),
        ("GET", "/v1/stats", &none, observe, Empty("longest_waits")),
        ("GET", "/metrics", &none, observe, Forbidden),
    ];
    let case = |(method, route, body, action, foreign): (_, &'static str, &Value, _, _)| {
        let worker = worker.to_string();
        let name = match route.split('/').nth(2) {
            Some("workers") => &worker,
            Some("workflows") => &workflow,
            _ => &id,
        };
        let path = route.replace("{id}", name).replace("{name}", "mine");
        Case { method, route, path, body: body.clone(), action, foreign }
    };
    rows.into_iter().map(case).collect()
}

/// A token with the public part of one and another secret, whose check is right.
fn with_another_secret(token: &ApiToken) -> String {
    let body = format!("rlk_{}_{}", token.id(), "ab".repeat(32));
    let check: String =
        Sha256::digest(&body)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let forged = body + &check;
    assert_eq!(ApiToken::parse(&forged).expect("it looks like one").id(), token.id());
    forged
}

#[tokio::test]
async fn every_route_by_every_sort_of_token() {
    let guarded = Guarded::start().await;
    let cases = cases(&guarded).await;
    let open = ["GET /healthz", "GET /readyz", "GET /openapi.json"].map(str::to_owned);
    let routes = cases.iter().map(|case| format!("{} {}", case.method, case.route)).chain(open);
    let mut routes: BTreeSet<String> = routes.collect();
    routes.remove("GET /openapi.json");
    assert_eq!(routes, described(), "each route has a case");

    let all = Action::ALL;
    let revoked = guarded.token(all, &["mine"]).await;
    assert!(guarded.owner.revoke_token(revoked.id()).await.expect("revoked"));
    let expired = guarded.expiring(all, &["mine"], Some(Duration::from_millis(1))).await;
    wait_until("it has expired", SOON, || async {
        guarded.owner.live_token(expired.id()).await.expect("reads").is_none()
    })
    .await;
    let live = guarded.token(all, &["mine"]).await;
    let mut misspelt = live.expose().to_owned();
    let last = misspelt.pop();
    misspelt.push(if last == Some('0') { '1' } else { '0' });
    let unknown = ApiToken::generate().expose().to_owned();
    let forged = with_another_secret(&live);
    let wrong = [
        "s3cret",
        &misspelt,
        &unknown,
        &forged,
        revoked.expose(),
        expired.expose(),
        &live.expose().to_uppercase(),
    ];
    for case in &cases {
        let ask = |token: String| {
            let guarded = &guarded;
            async move { guarded.ask(&token, case.method, &case.path, &case.body).await }
        };
        ask(String::new()).await.problem(401, "unauthorized");
        let mut said = BTreeSet::new();
        for token in wrong {
            let answer = ask(token.to_owned()).await;
            answer.problem(401, "unauthorized");
            said.insert(answer.body);
        }
        assert_eq!(said.len(), 1, "what is wrong is not told: {said:?}");
        let others: Vec<Action> = all.iter().copied().filter(|it| *it != case.action).collect();
        let token = guarded.token(&others, &["mine", "*"]).await;
        ask(token.expose().to_owned()).await.problem(403, "forbidden");

        let token = guarded.token(&[case.action], &["elsewhere", "min", "mine/*"]).await;
        let answer = ask(token.expose().to_owned()).await;
        match case.foreign {
            Foreign::Forbidden => drop(answer.problem(403, "forbidden")),
            Foreign::NotThere => drop(answer.problem(404, "RL404")),
            Foreign::Empty(key) => assert_eq!(answer.json(200)[key], json!([]), "{}", case.route),
        }
    }
    let observer = guarded.token(&[Action::Observe], &["mine"]).await;
    for (method, status) in [("HEAD", 200), ("DELETE", 403), ("PUT", 403)] {
        let answer = guarded.ask(observer.expose(), method, "/v1/jobs", &Value::Null).await;
        assert_eq!(answer.status, status, "{method}");
    }
    let worker = guarded.token(&[Action::Work], &["mine"]).await;
    let head = guarded.ask(worker.expose(), "HEAD", "/v1/jobs", &Value::Null).await;
    assert_eq!(head.status, 403);
    // After all refusals: nothing has changed that the right ones could not do.
    for case in &cases {
        let token = match case.route {
            "/metrics" => guarded.everything.clone(),
            _ => guarded.token(&[case.action], &["mine"]).await,
        };
        let answer = guarded.ask(token.expose(), case.method, &case.path, &case.body).await;
        assert!((200..300).contains(&answer.status), "{}: {answer:?}", case.route);
        if let Foreign::Empty(key) = case.foreign {
            assert_ne!(answer.json(200)[key], json!([]), "{}", case.route);
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        for token in ["", &misspelt, revoked.expose()] {
            guarded.ask(token, "GET", path, &Value::Null).await.json(200);
        }
    }
    guarded.end().await;
}
