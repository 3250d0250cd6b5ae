package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"fairlead.dev/api"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Codes that only this package raises. codeGone is final: bridge.Conn gives up on it.
const (
	codeGone        = "gone"
	codePodGone     = "pod-gone" // one pod, not the environment
	codeForbidden   = "forbidden"
	codeUnreachable = "cluster-unreachable"
	// codeCredentials is not api.CodeUnauthorized, which is the pod's word and ends a session: whoever logs in again goes on.
	codeCredentials = "cluster-credentials"
	codeNameTaken   = "name-taken"
)

// explain turns an API error into what a person can act on. What it does not recognise keeps its words, with the act in
// front.
func (c *client) explain(act string, err error) error {
	if err == nil {
		return nil
	}
	var p *api.Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	text := oneLine(err.Error())
	var sent *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &sent):
		// Our own limit, not an unanswered request: the cluster is slow to do what it was asked.
		return &api.Problem{Code: "cluster-slow", Message: act + ": the cluster has not done it in the time that was given",
			Hint: "it may still do it: see fairlead status, and repeat the command"}
	case strings.Contains(text, "getting credentials:"):
		return &api.Problem{Code: codeCredentials, Message: fmt.Sprintf("%s: context %q: %s", act, c.context, text),
			Hint: "log in to the cluster again; the kubeconfig names the program that should give the credentials"}
	case apierrors.IsUnauthorized(err):
		return &api.Problem{Code: codeCredentials, Message: fmt.Sprintf("%s: the API server does not accept the credentials of context %q", act, c.context),
			Hint: "they may have expired: log in to the cluster again, or choose another context with --context"}
	case apierrors.IsForbidden(err):
		if d, ok := parseDenial(text); ok {
			return d.problem()
		}
		return &api.Problem{Code: "refused", Message: act + ": " + text, Hint: "the cluster's own policy refused it; its administrators can tell what it asks for"}
	case apierrors.IsServiceUnavailable(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err),
		errors.Is(err, context.DeadlineExceeded), isNetwork(err):
		if errors.As(err, &sent) {
			text = oneLine(sent.Err.Error())
		}
		return &api.Problem{Code: codeUnreachable, Message: fmt.Sprintf("%s: the API server at %s cannot be reached: %s", act, c.server, text),
			Hint: fmt.Sprintf("is the cluster of context %q running, and the VPN up? Another context is chosen with --context", c.context)}
	}
	return fmt.Errorf("%s: %w", act, err)
}

func isNetwork(err error) bool {
	var n net.Error
	var u *url.Error
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	return errors.As(err, &n) || errors.As(err, &u) || errors.As(err, &cert) || errors.As(err, &authority)
}

// denial is one right that someone does not have.
type denial struct {
	verb, group, resource, namespace string
	name                             string // of one object; empty for all of the kind
}

var denied = regexp.MustCompile(`cannot ([a-z]+) resource "([a-z0-9./-]+)" in API group "([a-z0-9.-]*)"(?: in the namespace "([a-z0-9-]+)")?`)

// parseDenial reads the one message that RBAC has for a missing right.
func parseDenial(text string) (denial, bool) {
	m := denied.FindStringSubmatch(text)
	if m == nil {
		return denial{}, false
	}
	return denial{verb: m[1], resource: m[2], group: m[3], namespace: m[4]}, true
}

func (d denial) String() string {
	r := d.resource
	if d.group != "" {
		r += "." + d.group
	}
	if d.name != "" {
		r += " " + d.name
	}
	if d.namespace == "" {
		return d.verb + " " + r
	}
	return fmt.Sprintf("%s %s in namespace %s", d.verb, r, d.namespace)
}

// rule is the line of a Role that grants it.
func (d denial) rule() string {
	return fmt.Sprintf(`- {apiGroups: [%q], resources: [%q], verbs: [%q]}`, d.group, d.resource, d.verb)
}

func (d denial) problem() *api.Problem {
	kind := "Role"
	if d.namespace == "" {
		kind = "ClusterRole"
	}
	return &api.Problem{Code: codeForbidden, Message: "you may not " + d.String(),
		Hint: fmt.Sprintf("ask for this rule in your %s (fairlead rbac prints all of them): %s", kind, d.rule())}
}

// together makes one Problem of several missing rights, for a caller that can return only one error.
func together(ds []denial) *api.Problem {
	if len(ds) == 1 {
		return ds[0].problem()
	}
	var what, rules []string
	for _, d := range ds {
		what = append(what, d.String())
		rules = append(rules, d.rule())
	}
	return &api.Problem{Code: codeForbidden, Message: "you may not " + strings.Join(what, "; nor "),
		Hint: "ask for these rules in your Role (fairlead rbac prints all of them): " + strings.Join(rules, " ")}
}
