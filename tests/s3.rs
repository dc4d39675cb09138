//! The main path onto a real S3 server, whose objects are files that the oracle can read.

use crate::support::lab::assert_sound;
use crate::support::servers::{ACCESS_KEY, BUCKET, SECRET_KEY, versitygw};
use crate::support::{Lab, Synthetic};

#[tokio::test]
async fn test_s3_kill_in_the_middle_loses_and_doubles_nothing() {
    let Some(server) = versitygw().await else { return };
    let stream = Synthetic { seed: 17, partitions: 2, total: 1_500, rate: 300 };
    let mut lab = Lab::on_store(
        &stream.config(),
        &format!("s3://{BUCKET}/prefix"),
        &format!(
            "{{ endpoint = {:?}, region = \"us-east-1\", access_key_id = {ACCESS_KEY:?}, secret_access_key = \"env:TEST_S3_SECRET\", allow_http = \"true\" }}",
            server.endpoint()
        ),
    );
    lab.read_at(server.bucket().join("prefix"));
    let env = [("TEST_S3_SECRET", SECRET_KEY)];
    let mut node = lab.start_with(&env);
    lab.epoch_after(Synthetic::STREAM, 2).await;
    node.kill();
    assert!(!node.log().contains(SECRET_KEY));
    let mut node = lab.start_with(&env);
    let verdict = stream.whole(&lab, &node).await;
    assert_sound(&verdict, "a lake on S3");
    assert_eq!(node.terminate().await, Some(0));
    assert!(!node.log().contains(SECRET_KEY));
}
