//! A Kubernetes manifest, applied.

use std::fs;

use crate::rig::Pod;

const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: demo, labels: {app: web}}
spec:
  containers:
    - name: writer
      image: busybox
      command: [sh, -c, 'echo $(GREETING) >/data/x; sleep 1000']
      env: [{name: GREETING, value: hello}]
      resources: {limits: {memory: 32Mi}}
      volumeMounts: [{name: data, mountPath: /data}]
    - name: reader
      image: busybox
      command: [sleep, '1000']
      volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
  volumes: [{name: data, emptyDir: {}}]
";

#[test]
fn containers_run_and_share_a_volume() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    fs::write(pod.path("pod.yaml"), MANIFEST)?;
    let said = pod.ok(&["apply", "demo", "pod.yaml"]);
    assert!(
        said.text().contains("writer started") && said.text().contains("reader started"),
        "{}",
        said.text()
    );
    let script =
        "until [ -s /data/x ]; do sleep 0.05; done; cat /data/x; touch /data/y 2>/dev/null || echo read-only";
    assert_eq!(pod.ok(&["exec", "demo/reader", "sh", "-c", script]).text(), "hello\nread-only\n");
    let listed = pod.ok(&["ps", "demo", "--output", "json"]).json()?;
    assert_eq!(listed[0]["labels"]["app"], "web");
    fs::write(pod.path("pod.yaml"), MANIFEST.replace("volumes:", "hostNetwork: true\n  volumes:"))?;
    let refused = pod.fails_with(1, &["apply", "demo", "pod.yaml"]);
    assert!(refused.stderr.contains("hostNetwork"), "{}", refused.stderr);
    pod.fails_with(6, &["apply", "demo", "no-such-file.yaml"]);
    Ok(())
}
