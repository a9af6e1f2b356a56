//! Which action each route is. A route that is not here is for the token of the settings alone; a
//! test sees to it that every route is.

use axum::http::Method;

use crate::http::problem::{Kind, Problem};
use crate::model::{Action, Scope};

const RULES: &[(Action, &str, &[&str])] = &[
    (Action::Enqueue, "POST", &["/v1/jobs", "/v1/workflows"]),
    (
        Action::Work,
        "POST",
        &[
            "/v1/acquire",
            "/v1/executions/complete",
            "/v1/executions/fail",
            "/v1/executions/snooze",
            "/v1/executions/release",
            "/v1/workers/{id}/heartbeat",
        ],
    ),
    (
        Action::Operate,
        "POST",
        &[
            "/v1/jobs/{id}/cancel",
            "/v1/jobs/{id}/retry",
            "/v1/jobs/{id}/reprioritize",
            "/v1/workflows/{id}/cancel",
            "/v1/workflows/{id}/retry",
            "/v1/queues/{name}/pause",
            "/v1/queues/{name}/resume",
        ],
    ),
    (
        Action::Observe,
        "GET",
        &[
            "/v1/jobs",
            "/v1/jobs/{id}",
            "/v1/jobs/{id}/inputs",
            "/v1/jobs/{id}/explain",
            "/v1/workflows",
            "/v1/workflows/{id}",
            "/v1/workers",
            "/v1/queues",
            "/v1/stats",
            "/metrics",
        ],
    ),
];

/// The action that a route is.
fn action_of(method: &Method, route: &str) -> Option<Action> {
    // The router answers HEAD by what it has for GET.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let is_it =
        |(_, ruled, routes): &&(Action, &str, &[&str])| *ruled == method && routes.contains(&route);
    RULES.iter().find(is_it).map(|(action, ..)| *action)
}

/// Lets pass whom the token allows the route's action.
pub(super) fn check(scope: &Scope, method: &Method, route: &str) -> Result<(), Problem> {
    let action = action_of(method, route);
    if action.is_some_and(|action| scope.actions.contains(&action)) {
        return Ok(());
    }
    let wanted = action.map_or("what no such token is for", Action::as_str);
    Err(Problem::new(Kind::Forbidden, format!("the token is not for this: {wanted}"))
        .hint("`rowlock token create --action` makes one that is."))
}

#[cfg(test)]
mod tests {
    use super::super::OPEN;
    use super::*;
    use crate::http::description;

    #[test]
    fn every_route_is_open_or_an_action_and_no_rule_is_for_nothing() {
        let api = serde_json::to_value(description()).unwrap();
        let mut ruled = 0;
        for (path, item) in api["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let has_rule = action_of(&method, path).is_some();
                ruled += usize::from(has_rule);
                assert!(has_rule ^ OPEN.contains(&path.as_str()), "{method} {path}");
            }
        }
        assert_eq!(ruled, RULES.iter().map(|(.., routes)| routes.len()).sum::<usize>());
    }
}
