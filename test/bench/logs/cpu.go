package main

import (
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
)

// kinds names the processes on the way of a line, by their executable's name and, where that is not enough, a word of
// their command line.
var kinds = []struct{ exe, word, name string }{
	{"fairlead-pod", "connect", "pod: connect"},
	{"fairlead-pod", "run", "pod: supervisor"},
	{"containerd-shim-runc-v2", "", "containerd-shim"},
	{"containerd", "", "containerd"},
	{"", "kubelet", "kubelet"},
	{"", "kube-apiserver", "kube-apiserver"},
	{"etcd", "", "etcd"},
	{"", "-client", "client"},
}

// cpu is the CPU time, in clock ticks, of every process that has to do with it. It is empty where there is no /proc.
func cpu() map[string]int64 {
	out := map[string]int64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		stat, err := os.ReadFile(filepath.Join(d, "stat"))
		if err != nil {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		args := strings.Split(strings.TrimRight(string(cmd), "\x00"), "\x00")
		name := kindOf(args)
		if filepath.Base(d) == strconv.Itoa(os.Getpid()) {
			name = "agent"
		}
		if name == "" {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 13 {
			continue
		}
		u, _ := strconv.ParseInt(f[11], 10, 64)
		s, _ := strconv.ParseInt(f[12], 10, 64)
		out[name] += u + s
	}
	return out
}

func kindOf(args []string) string {
	exe := filepath.Base(args[0])
	if strings.Contains(exe, "chatter") || strings.Contains(args[0], "/fairlead/work/bin/") {
		return "service"
	}
	for _, k := range kinds {
		if k.exe != "" && k.exe != exe {
			continue
		}
		if k.word == "" {
			return k.name
		}
		for _, a := range args[:min(3, len(args))] {
			if filepath.Base(a) == k.word {
				return k.name
			}
		}
	}
	return ""
}

// used is the difference in seconds; a tick is a hundredth of one.
func used(before, after map[string]int64) map[string]float64 {
	out := map[string]float64{}
	for k, v := range after {
		if d := v - before[k]; d > 0 {
			out[k] = float64(d) / 100
		}
	}
	return out
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

func startProfile(mode string) (stop func()) {
	if *profile == "" || mode == "kubectl" {
		return func() {}
	}
	f, err := os.Create(*profile)
	if err != nil {
		return func() {}
	}
	pprof.StartCPUProfile(f)
	return func() { pprof.StopCPUProfile(); f.Close() }
}
