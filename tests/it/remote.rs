//! The commands about jobs and files that exist, against a server on this machine.

use crate::support::Rehearsal;

#[test]
fn a_submission_reaches_the_server_of_the_test() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    assert!(job.starts_with("ft-"), "{job}");
    assert_eq!((rehearsal.server.jobs_created(), rehearsal.server.violations()), (1, Vec::new()));
    assert!(rehearsal.dir.exists("state/ctxtune/jobs.jsonl"));
    rehearsal.forward(1000.0);
    let model = rehearsal.ctxtune(["monitor", "out"]).expect(0).stdout;
    assert!(model.contains("socialized-context-generator"), "{model}");
}
