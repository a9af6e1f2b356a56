//! The proxy that the tests cut connections with does what it says.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use crate::harness::{Db, wait_until};
use crate::proxy::{Fault, Loss, Mode, Protocol, Proxy, Side, Upstream, When};

const DEADLINE: Duration = Duration::from_secs(20);
/// As long as a silence has to last to be taken for one.
const SILENCE: Duration = Duration::from_millis(300);

/// A server that gives every byte back.
async fn echo() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Upstream::Tcp(address)
}

async fn bytes(mode: Mode) -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await, Protocol::Http).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    assert_eq!(said(&mut stream, b"a").await, Some(b"a".to_vec()));
    proxy.set(mode);
    (proxy, stream)
}

/// What comes back; nothing where the connection ends.
async fn said(stream: &mut TcpStream, what: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(what).await.ok()?;
    let mut answer = vec![0; what.len()];
    let read = timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("an end");
    read.ok().map(|_| answer)
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn a_refused_port_is_free_again_later() {
    let (proxy, mut open) = bytes(Mode::Refuse).await;
    wait_until("it refuses", DEADLINE, || async {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    assert!(said(&mut open, b"b").await.is_some(), "what is open stays");
    proxy.set(Mode::Pass);
    wait_until("it accepts", DEADLINE, || async {
        TcpStream::connect(proxy.address()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_one_for_open_and_new_connections() {
    let (proxy, mut open) = bytes(Mode::Reset).await;
    let error = timeout(DEADLINE, open.read_u8()).await.expect("it ends").expect_err("badly");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // It may be reset before connect returns.
    if let Ok(mut new) = TcpStream::connect(proxy.address()).await {
        assert!(said(&mut new, b"b").await.is_none());
    }
    proxy.set(Mode::Pass);
    let mut new = TcpStream::connect(proxy.address()).await.expect("connects");
    assert!(said(&mut new, b"b").await.is_some());
    proxy.cut_all();
    assert!(said(&mut new, b"b").await.is_none());
    assert!(2 <= proxy.accepted());
}

#[tokio::test]
async fn a_black_hole_swallows_and_gives_back() {
    let (proxy, mut open) = bytes(Mode::BlackHole).await;
    open.write_all(b"b").await.expect("taken");
    assert!(is_silent(&mut open).await);
    proxy.set(Mode::Pass);
    assert_eq!(timeout(DEADLINE, open.read_u8()).await.expect("comes").expect("a byte"), b'b');
}

#[tokio::test]
async fn half_open_is_silent_on_the_side_that_is_not_told() {
    let (_proxy, mut open) = bytes(Mode::HalfOpen(Side::Server)).await;
    open.write_all(b"b").await.expect("taken");
    assert!(is_silent(&mut open).await);
    let (_proxy, mut open) = bytes(Mode::HalfOpen(Side::Client)).await;
    assert!(said(&mut open, b"b").await.is_none());
}

#[tokio::test]
async fn bytes_are_late_or_few() {
    let late = Duration::from_millis(50);
    let (_proxy, mut open) = bytes(Mode::Delay(late)).await;
    let began = Instant::now();
    assert!(said(&mut open, b"bc").await.is_some());
    assert!(2 * late <= began.elapsed(), "there and back");
    let (_proxy, mut open) = bytes(Mode::Drip(late)).await;
    let began = Instant::now();
    assert!(said(&mut open, b"bcd").await.is_some());
    assert!(2 * late <= began.elapsed(), "two pauses between three bytes");
    // A byte has gone through before.
    let (_proxy, mut open) = bytes(Mode::CutAfter(3)).await;
    assert!(said(&mut open, b"b").await.is_some());
    assert!(said(&mut open, b"cd").await.is_none());
}

#[tokio::test]
async fn a_request_is_lost_on_its_way_or_its_answer_is() {
    for (when, loss) in [(When::Before, Loss::Cut), (When::After, Loss::Cut)] {
        let (proxy, mut open) = bytes(Mode::Pass).await;
        proxy.arm(Fault::once(when, loss, "POST /v1/jobs"));
        assert!(said(&mut open, b"GET /").await.is_some());
        assert!(said(&mut open, b"POST /v1/jobs").await.is_none());
        assert_eq!(proxy.struck(), 1);
    }
    let (proxy, mut open) = bytes(Mode::Pass).await;
    proxy.arm(Fault::once(When::After, Loss::Silence, ""));
    open.write_all(b"b").await.expect("taken");
    assert!(is_silent(&mut open).await);
    let (proxy, mut open) = bytes(Mode::Pass).await;
    proxy.arm(Fault::once(When::Before, Loss::Cut, ""));
    proxy.disarm();
    assert!(said(&mut open, b"b").await.is_some(), "taken back in time");
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

/// A way to add a row.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Prepared,
    Transaction,
    Pipeline,
}

/// Whether it was answered.
async fn add(client: &Client, way: Way, row: i32) -> bool {
    let sql = "insert into toys values ($1)";
    let row_text = format!("insert into toys values ({row})");
    let adding = async {
        match way {
            Way::Simple => client.batch_execute(&row_text).await,
            Way::Prepared => client.execute(sql, &[&row]).await.map(drop),
            Way::Transaction => {
                client.batch_execute("begin").await?;
                client.execute(sql, &[&row]).await?;
                client.batch_execute("commit").await
            }
            Way::Pipeline => {
                let typed: [(&(dyn ToSql + Sync), Type); 1] = [(&row, Type::INT4)];
                let (begun, added, done) = futures_util::join!(
                    client.batch_execute("begin; set local lock_timeout = 0"),
                    client.query_typed(sql, &typed),
                    client.batch_execute("COMMIT")
                );
                begun.and(added.map(drop)).and(done)
            }
        }
    };
    timeout(SILENCE, adding).await.is_ok_and(|added| added.is_ok())
}

#[tokio::test]
async fn a_commit_is_struck_before_or_after_however_it_is_said() {
    let db = Db::new().await;
    let direct = db.connect().await;
    direct.batch_execute("create table toys (id int)").await.expect("a table");
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    let url = proxy.url(&db.url());
    let mut row = 0;
    for way in [Way::Simple, Way::Prepared, Way::Transaction, Way::Pipeline] {
        for when in [When::Before, When::After] {
            for loss in [Loss::Cut, Loss::Silence] {
                let client = connect(&url).await;
                // What has other words, or fails, or only looks, passes.
                proxy.arm(Fault::once(when, loss, "INSERT INTO toys"));
                client.batch_execute("select 1").await.expect("passes");
                client.query("select $1::text", &[&"a"]).await.expect("passes");
                client.batch_execute("begin; insert into toys values (0); rollback").await.ok();
                row += 1;
                assert!(!add(&client, way, row).await, "{way:?} {when:?} {loss:?}");
                assert_eq!(proxy.struck(), u64::try_from(row).expect("small"));
                assert_eq!(client.is_closed(), loss == Loss::Cut, "{way:?} {when:?} {loss:?}");
                let there = "select count(*) from toys where id = $1";
                let there: i64 = direct.query_one(there, &[&row]).await.expect("count").get(0);
                assert_eq!(there, i64::from(when == When::After), "{way:?} {when:?} {loss:?}");
                // Spent, it strikes no more.
                assert!(add(&connect(&url).await, way, -1).await);
            }
        }
    }
    drop(proxy);
    db.finish().await;
}
