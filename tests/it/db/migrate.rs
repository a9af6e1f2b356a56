//! Migrations: many at once, forward only, by roles of all kinds.

use super::{MORE_TOYS, TOYS, options, scalar, schema, url};
use rowlock::db::migrate::{self, Files, Migration};
use rowlock::db::{Pool, connect};

#[tokio::test]
async fn twenty_migrations_at_once_are_one() {
    let schema = schema();
    let runs: Vec<_> = (0..20)
        .map(|_| {
            let schema = schema.clone();
            tokio::spawn(async move {
                let mut client = connect(&url().await).await.unwrap();
                migrate::run_files(&mut client, &schema, &TOYS).await.unwrap()
            })
        })
        .collect();
    let mut changed = 0;
    for run in runs {
        let report = run.await.unwrap();
        assert_eq!(report.version, 1);
        changed += u32::from(!report.is_unchanged());
    }
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn a_schema_goes_forward_and_never_back() {
    let schema = schema();
    let mut client = connect(&url().await).await.unwrap();
    let before = migrate::check_files(&client, &schema, &TOYS).await;
    assert!(matches!(before, Err(migrate::Error::Behind { found: 0, newest: 1 })));
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let report = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert_eq!((report.from, report.version, report.functions), (1, 2, 1));
    let back = migrate::run_files(&mut client, &schema, &TOYS).await;
    assert!(matches!(back, Err(migrate::Error::Newer { found: 2, newest: 1 })));
    migrate::check_files(&client, &schema, &MORE_TOYS).await.unwrap();
}

#[tokio::test]
async fn a_failed_migration_names_its_line_and_leaves_nothing() {
    const BROKEN: Files = Files {
        migrations: &[
            TOYS.migrations[0],
            Migration { file: "0002_broken", sql: "select 1;\nselect 2;\nselect nothing;" },
        ],
        functions: &[],
    };
    let schema = schema();
    let mut client = connect(&url().await).await.unwrap();
    let error = migrate::run_files(&mut client, &schema, &BROKEN).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "schema/migrations/0002_broken.sql:3 failed and nothing was changed");
    let sql = format!("select 1 from pg_namespace where nspname = '{schema}'");
    assert!(client.query(&sql, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn definer_functions_do_not_belong_to_a_superuser() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let owner: String = scalar(
        &pool,
        "select pg_get_userbyid(proowner)::text from pg_proc where oid = 'watch'::regproc",
    )
    .await;
    assert_eq!(owner, options.schema().role("owner"));
    let power = "select rolsuper or rolcanlogin from pg_roles \
                 where rolname = current_schema() || '_owner'";
    assert!(!scalar::<bool>(&pool, power).await);
    let path: String = scalar(
        &pool,
        "select array_to_string(proconfig, ' ') from pg_proc where oid = 'watch'::regproc",
    )
    .await;
    assert_eq!(path, format!("search_path={}, pg_temp", options.schema()));
}

#[tokio::test]
async fn a_role_without_rights_to_make_roles_may_install() {
    let schema = schema();
    let mut client = connect(&url().await).await.unwrap();
    let plain = format!("{schema}_plain");
    let sql = format!(
        "create role {plain}; create schema {schema} authorization {plain}; \
         set session authorization {plain}"
    );
    client.batch_execute(&sql).await.unwrap();
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let again = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert_eq!(again.version, 2);
    // A superuser who migrates later leaves the owner as it was.
    client.batch_execute("reset session authorization").await.unwrap();
    let again = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert!(again.is_unchanged());
    let sql = format!(
        "select pg_get_userbyid(nspowner)::text from pg_namespace where nspname = '{schema}'"
    );
    let owner: String = client.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(owner, plain);
}

#[tokio::test]
async fn six_databases_may_make_the_same_roles_at_once() {
    let schema = schema();
    let base = url().await;
    let client = connect(&base).await.unwrap();
    let databases: Vec<_> = (0..6).map(|number| format!("{schema}_{number}")).collect();
    for database in &databases {
        client.batch_execute(&format!("create database {database}")).await.unwrap();
    }
    let runs: Vec<_> = databases
        .iter()
        .map(|database| {
            let url = format!("{}&dbname={database}", base.expose());
            let schema = schema.clone();
            tokio::spawn(async move {
                let mut client = connect(&url.as_str().into()).await.unwrap();
                migrate::run_files(&mut client, &schema, &TOYS).await.unwrap()
            })
        })
        .collect();
    for run in runs {
        assert_eq!(run.await.unwrap().applied, ["0001_toys"]);
    }
}

#[tokio::test]
async fn a_role_that_may_make_roles_gives_the_schema_away() {
    let schema = schema();
    let admin = connect(&url().await).await.unwrap();
    let maker = format!("{schema}_maker");
    admin.batch_execute(&format!("create role {maker} login createrole")).await.unwrap();
    admin.batch_execute(&format!("create database {maker} owner {maker}")).await.unwrap();
    let url = format!("{}&user={maker}&dbname={maker}", url().await.expose());
    let mut client = connect(&url.as_str().into()).await.unwrap();
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let again = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert_eq!((again.from, again.version), (1, 2));
    let sql = format!("select tableowner::text from pg_tables where schemaname = '{schema}'");
    for row in client.query(&sql, &[]).await.unwrap() {
        assert_eq!(row.get::<_, String>(0), schema.role("owner"));
    }
}

#[tokio::test]
async fn the_dry_run_installs_by_itself() {
    let schema = schema();
    let mut client = connect(&url().await).await.unwrap();
    assert_eq!(migrate::plan_for(&client, &schema).await.unwrap(), migrate::plan(&schema));
    client.batch_execute(&migrate::plan(&schema)).await.unwrap();
    migrate::check(&client, &schema).await.unwrap();
    assert!(migrate::run(&mut client, &schema).await.unwrap().is_unchanged());
    assert!(!migrate::plan_for(&client, &schema).await.unwrap().contains("create table"));
}

#[tokio::test]
async fn a_schema_that_holds_something_else_is_refused() {
    let schema = schema();
    let mut client = connect(&url().await).await.unwrap();
    client.batch_execute(&format!("create schema {schema}")).await.unwrap();
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let other = format!("{schema}_b").parse().unwrap();
    let sql = format!("create schema {other}; create type {other}.mine as enum ('a')");
    client.batch_execute(&sql).await.unwrap();
    let error = migrate::run_files(&mut client, &other, &TOYS).await.unwrap_err();
    assert!(format!("{error:?}").contains("is not empty"), "{error:?}");
}
