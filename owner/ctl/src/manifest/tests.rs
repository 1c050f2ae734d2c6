//! A manifest that is understood, and many that are refused with the field's name.

use postern_model::{RunUser, container::MountKind};

use super::*;

const FULL: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: demo
  labels: {app: web}
spec:
  restartPolicy: Never
  hostname: web-host
  containers:
    - name: web
      image: example.org/web:1
      command: ["/bin/serve", "$(PORT)"]
      args: ["--greeting", "$(GREETING) $(UNKNOWN) $$(PORT) $"]
      env:
        - {name: PORT, value: "8080"}
        - {name: GREETING, value: "port $(PORT)"}
      workingDir: /srv
      resources:
        limits: {memory: 64Mi, cpu: 500m}
      securityContext:
        readOnlyRootFilesystem: true
        runAsUser: 1000
        runAsGroup: 2000
        allowPrivilegeEscalation: false
        capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}
      stdin: true
      tty: true
      volumeMounts:
        - {name: cache, mountPath: /data, readOnly: true}
        - {name: scratch, mountPath: /tmp}
    - name: side
      image: busybox
      resources: {limits: {cpu: 2, memory: 1000000}}
      volumeMounts: [{name: cache, mountPath: /data}]
  volumes:
    - {name: cache, emptyDir: {}}
    - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1M}}
"#;

fn pod() -> PodName {
    "demo".parse().unwrap()
}

#[test]
fn every_understood_field_is_kept() {
    let specs = parse(FULL, &pod()).unwrap();
    let [web, side] = specs.as_slice() else { panic!("{specs:?}") };
    assert_eq!(web.entrypoint.as_deref(), Some(&["/bin/serve".to_owned(), "8080".to_owned()][..]));
    assert_eq!(web.args, ["--greeting", "port 8080 $(UNKNOWN) $(PORT) $"]);
    assert_eq!(web.env["GREETING"], "port 8080");
    assert_eq!(web.working_dir.as_deref(), Some(Path::new("/srv")));
    assert_eq!((web.resources.memory, web.resources.cpu_millis), (Some(64 << 20), Some(500)));
    assert_eq!(web.user, RunUser::Named("1000:2000".into()));
    assert!(web.read_only_rootfs && web.stdin && web.terminal && !web.host_may_start);
    assert_eq!((web.add_capabilities.len(), web.drop_capabilities.len()), (1, 1));
    assert_eq!(web.hostname.as_deref(), Some("web-host"));
    assert_eq!(web.labels["app"], "web");
    assert_eq!(web.mounts[0].kind, MountKind::Volume { name: "cache".parse().unwrap() });
    assert!(web.mounts[0].read_only);
    assert_eq!(web.mounts[1].kind, MountKind::Tmpfs { size: Some(1_000_000) });
    assert_eq!((side.resources.memory, side.resources.cpu_millis), (Some(1_000_000), Some(2000)));
    assert_eq!(side.user, RunUser::Image);
}

#[test]
fn the_host_may_restart_what_kubernetes_would() {
    let always = FULL.replace("  restartPolicy: Never\n", "");
    assert!(parse(&always, &pod()).unwrap()[0].host_may_start);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (from, to, named) in [
        ("hostname: web-host", "hostNetwork: true", "hostNetwork"),
        ("stdin: true", "livenessProbe: {}", "livenessProbe"),
        ("value: \"8080\"", "valueFrom: {}", "valueFrom"),
        ("limits: {memory: 64Mi, cpu: 500m}", "requests: {memory: 1Mi}", "requests"),
        ("cpu: 500m", "nvidia.com/gpu: 1", "nvidia.com/gpu"),
        ("emptyDir: {}", "hostPath: {path: /}", "hostPath"),
        ("kind: Pod", "kind: Deployment", "Deployment"),
        ("name: demo", "name: other", "metadata.name"),
        ("name: side", "name: web", "spec.containers[1].name"),
        ("name: side", "name: ../x", "spec.containers[1].name"),
        ("image: busybox", "image: ''", "spec.containers[1].image"),
        ("memory: 64Mi", "memory: lots", "spec.containers[0].resources.limits.memory"),
        ("cpu: 500m", "cpu: -1", "spec.containers[0].resources.limits.cpu"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"),
        ("runAsUser: 1000", "", "runAsGroup"),
        ("mountPath: /tmp", "mountPath: tmp", "mount.destination"),
        ("{name: scratch, mountPath: /tmp}", "{name: nowhere, mountPath: /tmp}", "nowhere"),
        ("{name: cache, emptyDir: {}}", "{name: shared, emptyDir: {}}", "spec.volumes[0].name"),
        ("emptyDir: {}", "emptyDir: {medium: Memory}", "spec.volumes[0].emptyDir.medium"),
        ("emptyDir: {}", "emptyDir: {sizeLimit: 1M}", "spec.volumes[0].emptyDir.sizeLimit"),
        ("workingDir: /srv", "workingDir: srv", "working_dir"),
    ] {
        let changed = FULL.replacen(from, to, 1);
        assert_ne!(changed, FULL, "{from}");
        let error = parse(&changed, &pod()).unwrap_err().to_string();
        assert!(error.contains(named), "{from} -> {to}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn broken_yaml_is_an_error_with_its_place() {
    for text in ["", "a: [", "spec: &a [*a, *a]", "- 1", "apiVersion: v1\nkind: Pod\n", &"[".repeat(100_000)]
    {
        assert!(parse(text, &pod()).is_err());
    }
    let error = parse("apiVersion: v1\nkind: Pod\nspec: 7\n", &pod()).unwrap_err().to_string();
    assert!(error.contains('3'), "{error}");
}
