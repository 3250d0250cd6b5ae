package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/test/cluster/internal/fault"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"fly"},
		{"up", "now"},
		{"stop"},
		{"stop", "etcd", "kubelet"},
		{"up", "--nonsense"},
	} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), args, &stdout, &stderr)
		if !errors.Is(err, errUsage) || stdout.Len() > 0 || !strings.Contains(stderr.String(), "usage: cluster") {
			t.Errorf("cluster %q: %v, stdout %q, stderr %q", args, err, stdout.String(), stderr.String())
		}
	}
}

func TestStatusWithoutCluster(t *testing.T) {
	// The flag after the word, as people type it.
	err := run(t.Context(), []string{"status", "--dir", filepath.Join(t.TempDir(), "none")}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "none is up") || fault.Hint(err) == "" {
		t.Errorf("got %v with hint %q", err, fault.Hint(err))
	}
}

func TestUpOutsideTheCheckout(t *testing.T) {
	err := run(t.Context(), []string{"up", "--source", t.TempDir(), "--dir", filepath.Join(t.TempDir(), "none")}, nil, nil)
	if err == nil || fault.Hint(err) == "" {
		t.Errorf("got %v with hint %q", err, fault.Hint(err))
	}
}
