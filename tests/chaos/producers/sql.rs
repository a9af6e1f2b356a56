//! A producer that calls the functions, in transactions of its own.

use tokio::sync::Mutex;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{Answer, judged};
use crate::database::connect;
use crate::plan::{Call, Manner, Options};
use crate::run::{Run, Slip};

/// Its connection, opened when it is needed.
pub(super) struct Sender {
    run: Run,
    name: String,
    client: Mutex<Option<Client>>,
}

impl Sender {
    pub(super) fn new(run: &Run, name: &str) -> Self {
        Sender { run: run.clone(), name: name.to_owned(), client: Mutex::new(None) }
    }

    pub(super) async fn send(&self, call: &Call, life: u64) -> Answer {
        let mut slot = self.client.lock().await;
        // Taken out: a call that is given up in the middle leaves no transaction to the next.
        let mut client = match slot.take() {
            Some(client) if !client.is_closed() => client,
            _ => match connect(&self.run.url, &self.name).await {
                Ok(client) => client,
                Err(error) => return Answer::Unknown(error.to_string()),
            },
        };
        let answer = self.transact(&mut client, call, life).await;
        if !matches!(answer, Ok(Answer::Unknown(_)) | Err(_)) {
            *slot = Some(client);
        }
        answer.unwrap_or_else(|error| judged(&error))
    }

    async fn transact(
        &self,
        client: &mut Client,
        call: &Call,
        life: u64,
    ) -> Result<Answer, tokio_postgres::Error> {
        if !matches!(call.manner, Manner::WithOrder | Manner::RolledBack) {
            return Ok(Answer::Ack(self.enqueue(client, call, life).await?));
        }
        let transaction = client.transaction().await?;
        // A call with new ids is another order to who makes it.
        let slips = self.run.slip == Some(Slip::NewIdsAfterUnknown);
        let order = "insert into chaos.orders values ($1) on conflict do nothing";
        if !slips {
            transaction.execute(order, &[&(call.number as i64)]).await?;
        }
        let ids = self.enqueue(transaction.client(), call, life).await?;
        if call.manner == Manner::RolledBack {
            transaction.rollback().await?;
            return Ok(Answer::RolledBack);
        }
        transaction.commit().await?;
        Ok(Answer::Ack(ids))
    }

    async fn enqueue(
        &self,
        client: &Client,
        call: &Call,
        life: u64,
    ) -> Result<Vec<Uuid>, tokio_postgres::Error> {
        let n = call.jobs[0].n;
        let options = Options::of(&self.run, n);
        let is_plain = options.run_at.is_none() && options.priority.is_none() && !options.has_key;
        if call.is_single() && is_plain && call.manner != Manner::Refused {
            let sql = "select rowlock.enqueue('work', $1::text::jsonb, $2, id => $3)";
            let args = serde_json::json!({"n": n}).to_string();
            let id = self.run.id(n, life);
            return Ok(vec![client.query_one(sql, &[&args, &options.queue, &id]).await?.get(0)]);
        }
        let sql = "select job_id from rowlock.enqueue_many($1::text::jsonb)";
        let rows = client.query(sql, &[&call.body(&self.run, life)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
