//! The listener, also behind something that swallows notifications.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{options, url};
use rowlock::db::listen::{Event, Listener, Mode, listener};
use rowlock::db::{Error, Options, Pool};
use rowlock::model::Code;

async fn listening(options: &Options) -> (Listener, mpsc::Receiver<Event>, CancellationToken) {
    let stop = CancellationToken::new();
    let (listener, mut events, task) = listener(options, stop.clone()).expect("a listener");
    tokio::spawn(task);
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 1 }));
    assert_eq!(listener.mode(), Mode::Listen);
    (listener, events, stop)
}

#[tokio::test]
async fn a_listener_hears_and_hears_again_after_a_break() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let (listener, mut events, stop) = listening(&options).await;
    let notify = "select pg_notify(current_schema(), 'etl')";
    pool.get().await.unwrap().query(notify, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Wake("etl".to_owned())));

    let watch = listener.watch(vec!["etl".to_owned()]).await.unwrap();
    while !listener.settled(&watch).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                where application_name = 'rowlock listener' and query like '%settled%'";
    pool.get().await.unwrap().query(kill, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 2 }));
    assert!(matches!(listener.settled(&watch).await, Err(Error::Unavailable(_))));

    // A refusal is an error too, and so the end of the session.
    let refused = listener.unwatch(vec![]).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Invalid));
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 3 }));
    pool.get().await.unwrap().query(notify, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Wake("etl".to_owned())));
    stop.cancel();
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn a_flood_that_nobody_reads_is_summed_up() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let (_listener, mut events, _stop) = listening(&options).await;
    let flood = "select pg_notify(current_schema(), 'q' || n) from generate_series(1, 5000) n";
    pool.get().await.unwrap().query(flood, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut woken = 0;
    let last = loop {
        match events.recv().await {
            Some(Event::Wake(_)) => woken += 1,
            other => break other,
        }
    };
    assert_eq!(last, Some(Event::Missed));
    assert!(woken <= 1024, "{woken}");
}

#[tokio::test]
async fn behind_a_pooler_that_swallows_notifications_there_is_polling() {
    let mut options = options().await;
    let pooler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = pooler.local_addr().unwrap().port();
    let url = url().await;
    let config: tokio_postgres::Config = url.expose().parse().unwrap();
    let [tokio_postgres::config::Host::Unix(folder)] = config.get_hosts() else {
        panic!("the test cluster listens on a socket");
    };
    let socket = folder.join(".s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((client, _)) = pooler.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(swallow_notifications(client, server));
        }
    });
    let through =
        format!("host=127.0.0.1 port={port} user=rowlock dbname=postgres sslmode=disable");
    options.settings.listen_url = Some(through.as_str().into());
    let (mut listener, _events, task) = listener(&options, CancellationToken::new()).unwrap();
    tokio::spawn(task);
    assert_eq!(listener.mode(), Mode::Connecting);
    assert_eq!(listener.mode_changed().await, Mode::Poll);
    let refused = listener.watch(vec!["etl".to_owned()]).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
}

/// Passes everything on but NotificationResponse.
async fn swallow_notifications(client: TcpStream, server: UnixStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    while let Ok(kind) = from_server.read_u8().await {
        let length = from_server.read_u32().await.expect("reads");
        let mut body = vec![0; length as usize - 4];
        from_server.read_exact(&mut body).await.expect("reads");
        if kind != b'A' {
            let message = [&[kind][..], &length.to_be_bytes(), &body].concat();
            to_client.write_all(&message).await.expect("writes");
        }
    }
}
