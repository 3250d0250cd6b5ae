package janitor

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"text/template"
)

// ManifestOptions say where the janitor of a cluster is put.
type ManifestOptions struct {
	Namespace string // empty is "fairlead"
	Image     string // that has fairlead-platform as its entry point; empty is "fairlead-platform"
}

// LeaseName is the coordination Lease by which one of several janitors leads.
const LeaseName = "fairlead-janitor"

// rule is what one rule of a Role allows, and why.
type rule struct {
	Group     string
	Resources []string
	Names     []string
	Verbs     []string
	Why       string
}

// clusterRules are what a janitor takes in the whole cluster. It reads no Secret and deletes none: an environment's goes
// with the Deployment that owns it.
func clusterRules() []rule {
	return []rule{
		{"apps", []string{"deployments"}, nil, []string{"get", "list", "watch", "patch", "delete"}, "environments are Deployments: they are watched, scaled to zero and deleted; so are fresh copies of dependencies scaled"},
		{"", []string{"namespaces"}, nil, []string{"get", "list", "watch", "delete"}, "a namespace that was made for an environment goes with it"},
		{"", []string{"pods", "services", "persistentvolumeclaims", "configmaps"}, nil, []string{"list"}, "see what is in such a namespace: one with anything of somebody else's in it is kept"},
		{"apps", []string{"statefulsets"}, nil, []string{"list", "watch", "patch"}, "the same: what is in the namespace; and fresh copies of dependencies are scaled to zero and back with their environment"},
		{"events.k8s.io", []string{"events"}, nil, []string{"create"}, "the warning that an environment is due, on its Deployment"},
		{"", []string{"configmaps"}, nil, []string{"create"}, "the record of why environments went, in the namespace that they were in (a name cannot be given for create)"},
		{"", []string{"configmaps"}, []string{recordName}, []string{"get", "patch"}, "the same: that one ConfigMap"},
	}
}

// ownRules are what it takes in its own namespace.
func ownRules() []rule {
	return []rule{
		{"coordination.k8s.io", []string{"leases"}, nil, []string{"create"}, "one of several janitors leads (a name cannot be given for create)"},
		{"coordination.k8s.io", []string{"leases"}, []string{LeaseName}, []string{"get", "update"}, "the same: that one Lease"},
	}
}

var manifest = template.Must(template.New("manifest").Funcs(template.FuncMap{
	"list": func(ss []string) string { return `["` + strings.Join(ss, `", "`) + `"]` },
}).Parse(`{{define "rules"}}{{range .}}# {{.Why}}
- apiGroups: ["{{.Group}}"]
  resources: {{list .Resources}}
{{if .Names}}  resourceNames: {{list .Names}}
{{end}}  verbs: {{list .Verbs}}
{{end}}{{end -}}
# The janitor: it puts unused environments to sleep, and deletes those that sleep for long.
# Printed by fairlead-platform manifest.
apiVersion: v1
kind: Namespace
metadata:
  name: {{.Namespace}}
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: fairlead-janitor
  namespace: {{.Namespace}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: fairlead-janitor
rules:
{{template "rules" .Cluster}}---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: fairlead-janitor
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: fairlead-janitor
subjects:
- kind: ServiceAccount
  name: fairlead-janitor
  namespace: {{.Namespace}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: fairlead-janitor
  namespace: {{.Namespace}}
rules:
{{template "rules" .Own}}---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: fairlead-janitor
  namespace: {{.Namespace}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: fairlead-janitor
subjects:
- kind: ServiceAccount
  name: fairlead-janitor
  namespace: {{.Namespace}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: fairlead-janitor
  namespace: {{.Namespace}}
  labels:
    app.kubernetes.io/name: fairlead-janitor
spec:
  replicas: 2 # one leads, the other takes over
  selector:
    matchLabels:
      app.kubernetes.io/name: fairlead-janitor
  template:
    metadata:
      labels:
        app.kubernetes.io/name: fairlead-janitor
    spec:
      serviceAccountName: fairlead-janitor
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile:
          type: RuntimeDefault
      containers:
      - name: janitor
        image: {{.Image}}
        args:
        - janitor
        - --lease-namespace={{.Namespace}}
        - --record-namespace={{.Namespace}}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: ["ALL"]
        resources:
          requests:
            cpu: 10m
            memory: 32Mi
          limits:
            memory: 256Mi
`))

// Manifest is what puts a janitor into a cluster, as YAML with a reason for each rule.
func Manifest(o ManifestOptions) ([]byte, error) {
	var b bytes.Buffer
	err := manifest.Execute(&b, map[string]any{"Namespace": cmp.Or(o.Namespace, "fairlead"), "Image": cmp.Or(o.Image, "fairlead-platform"), "Cluster": clusterRules(), "Own": ownRules()})
	if err != nil {
		return nil, fmt.Errorf("draw the manifest: %w", err)
	}
	return b.Bytes(), nil
}
