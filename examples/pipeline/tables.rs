//! The pipeline's own tables, in the database's `public` schema. Every row says which run wrote it.

use rowlock::db;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::extract::Entity;

/// Two entities are related when they occur together in so many documents.
const TOGETHER: i64 = 3;

const TABLES: &str = "
    create table if not exists pipeline_runs (
        run uuid primary key, input text not null, documents int not null, report_job uuid not null,
        started_at timestamptz not null default now());
    create table if not exists pipeline_documents (
        run uuid, document text, entities int not null, primary key (run, document));
    create table if not exists pipeline_entities (
        run uuid, document text, sort text, entity text, mentions int not null,
        primary key (run, document, sort, entity));
    create table if not exists pipeline_relations (
        run uuid, first_sort text, first text, second_sort text, second text,
        documents bigint not null, strength float8 not null,
        primary key (run, first_sort, first, second_sort, second));
    create table if not exists pipeline_reports (
        run uuid primary key, report jsonb not null, ended_at timestamptz not null default now());";

/// Strength: in how many documents both occur, weighted by how seldom one occurs without the other.
const RELATE: &str = "
    insert into pipeline_relations
    with known as materialized (
        select sort, entity, count(*) as documents from pipeline_entities
        where run = $1 group by sort, entity having count(*) >= $2),
    found as materialized (
        select e.document, e.sort, e.entity, k.documents from pipeline_entities e
        join known k on k.sort = e.sort and k.entity = e.entity where e.run = $1)
    select $1, a.sort, a.entity, b.sort, b.entity, count(*),
        count(*) * count(*) / sqrt(a.documents * b.documents)
    from found a join found b on b.document = a.document and (a.sort, a.entity) < (b.sort, b.entity)
    group by a.sort, a.entity, a.documents, b.sort, b.entity, b.documents
    having count(*) >= $2";

const STRONGEST: &str = "
    select first_sort, first, second_sort, second, documents, strength from pipeline_relations
    where run = $1 order by strength desc, first_sort, first, second_sort, second limit $2";

/// Opens a connection.
pub(crate) async fn connect(url: &str) -> Result<Client, db::Error> {
    db::connect(&url.into()).await
}

/// Makes the tables unless they are there.
pub(crate) async fn create(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    // Two pipelines that start at once would both try.
    transaction.execute("select pg_advisory_xact_lock(hashtext('pipeline tables'))", &[]).await?;
    transaction.batch_execute(TABLES).await?;
    transaction.commit().await
}

/// Notes a run, with the job that will end it.
pub(crate) async fn begin_run(
    transaction: &Transaction<'_>,
    run: Uuid,
    input: &str,
    documents: usize,
    report_job: Uuid,
) -> Result<(), tokio_postgres::Error> {
    let statement = "insert into pipeline_runs (run, input, documents, report_job)
                     values ($1, $2, $3, $4)";
    let documents = i32::try_from(documents).unwrap_or(i32::MAX);
    transaction.execute(statement, &[&run, &input, &documents, &report_job]).await.map(drop)
}

/// Writes what a document mentions.
pub(crate) async fn write_entities(
    transaction: &Transaction<'_>,
    run: Uuid,
    document: &str,
    entities: &[Entity],
) -> Result<(), tokio_postgres::Error> {
    let sorts: Vec<&str> = entities.iter().map(|entity| entity.sort.as_str()).collect();
    let texts: Vec<&str> = entities.iter().map(|entity| entity.text.as_str()).collect();
    let mentions: Vec<i32> =
        entities.iter().map(|entity| i32::try_from(entity.mentions).unwrap_or(i32::MAX)).collect();
    let statement = "insert into pipeline_entities (run, document, sort, entity, mentions)
                     select $1, $2, * from unnest($3::text[], $4::text[], $5::int[])";
    transaction.execute(statement, &[&run, &document, &sorts, &texts, &mentions]).await?;
    let statement = "insert into pipeline_documents values ($1, $2, $3)";
    let count = i32::try_from(entities.len()).unwrap_or(i32::MAX);
    transaction.execute(statement, &[&run, &document, &count]).await.map(drop)
}

/// Builds the relations of a run; says how many.
pub(crate) async fn relate(
    transaction: &Transaction<'_>,
    run: Uuid,
) -> Result<u64, tokio_postgres::Error> {
    transaction.execute(RELATE, &[&run, &TOGETHER]).await
}

/// Two entities and how strongly they go together.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Relation {
    pub(crate) first: String,
    pub(crate) second: String,
    pub(crate) documents: i64,
    pub(crate) strength: f64,
}

/// The strongest relations of a run.
pub(crate) async fn strongest(
    transaction: &Transaction<'_>,
    run: Uuid,
    most: i64,
) -> Result<Vec<Relation>, tokio_postgres::Error> {
    let rows = transaction.query(STRONGEST, &[&run, &most]).await?;
    let named = |sort: String, text: String| format!("{text} ({sort})");
    let relation = |row: &tokio_postgres::Row| Relation {
        first: named(row.get(0), row.get(1)),
        second: named(row.get(2), row.get(3)),
        documents: row.get(4),
        strength: row.get(5),
    };
    Ok(rows.iter().map(relation).collect())
}

/// How many documents of a run were given up; for when all have ended.
pub(crate) async fn failed_documents(
    transaction: &Transaction<'_>,
    run: Uuid,
) -> Result<i64, tokio_postgres::Error> {
    let query =
        "select r.documents - (select count(*) from pipeline_documents d where d.run = r.run)
                 from pipeline_runs r where r.run = $1";
    transaction.query_one(query, &[&run]).await.map(|row| row.get(0))
}

/// Keeps the report.
pub(crate) async fn write_report(
    transaction: &Transaction<'_>,
    run: Uuid,
    report: &serde_json::Value,
) -> Result<(), tokio_postgres::Error> {
    let statement = "insert into pipeline_reports (run, report) values ($1, $2)";
    transaction.execute(statement, &[&run, report]).await.map(drop)
}
