package supervisor

import (
	"cmp"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Both ways to the sockets that a process listens on agree, and see no connection. They come in the order of the descriptors, whatever processor
// they were made on.
func TestListeners(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &mine)
	var cpus []int
	for cpu := range 64 * len(mine) {
		if mine.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	var want []string
	fds := map[string]uintptr{}
	for i, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		network := "tcp4"
		if at[0] == '[' {
			network = "tcp6"
		}
		var there unix.CPUSet
		there.Set(cpus[i%len(cpus)])
		if err := unix.SchedSetaffinity(0, &there); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		want = append(want, ln.Addr().String())
		raw, err := ln.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { fds[ln.Addr().String()] = fd })
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	slices.SortFunc(want, func(a, b string) int { return cmp.Compare(fds[a], fds[b]) }) // other tests may have left gaps
	var got []string
	socks := map[uint64]bool{}
	for _, l := range listeners([]int{os.Getpid()}) {
		got, socks[l.inode] = append(got, l.addr.String()), true
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	asked, err := askListeners(socks)
	if err != nil {
		t.Fatal(err)
	}
	for _, ls := range [][]listener{asked, readListeners(socks)} {
		all := map[netip.AddrPort]bool{}
		for _, l := range ls {
			all[l.addr] = true
		}
		if len(ls) != len(want) || len(all) != len(want) {
			t.Errorf("%v, want %v", ls, want)
		}
	}
	// Sockets of others are left out.
	if ls, err := askListeners(map[uint64]bool{1: true}); err != nil || len(ls) > 0 {
		t.Error(ls, err)
	}
}

// What is there already stays before what came, whatever their descriptors are.
func TestInOrder(t *testing.T) {
	at := func(port uint16) listener {
		return listener{netip.AddrPortFrom(netip.IPv4Unspecified(), port), uint64(port)}
	}
	now := []listener{at(1), at(2), at(3), at(4)}
	inOrder(now, []listener{at(4), at(9), at(2)})
	if d := gocmp.Diff([]uint64{4, 2, 1, 3}, []uint64{now[0].inode, now[1].inode, now[2].inode, now[3].inode}); d != "" {
		t.Error(d)
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add(diagRequest(unix.AF_INET))
	b := make([]byte, unix.SizeofNlMsghdr+diagAnswerSize)
	copy(b, diagRequest(unix.AF_INET6)[:unix.SizeofNlMsghdr])
	b[0], b[17] = byte(len(b)), tcpListen
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		ls, _, err := parseDiag(b, map[uint64]bool{0: true})
		for _, l := range ls {
			if err != nil || !l.addr.IsValid() {
				t.Fatalf("%+v %v", l, err)
			}
		}
	})
}

// What a look at the ports costs, both ways.
func BenchmarkListeners(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var socks = map[uint64]bool{}
	for _, l := range listeners([]int{os.Getpid()}) {
		socks[l.inode] = true
	}
	b.Run("sock_diag", func(b *testing.B) {
		for b.Loop() {
			if _, err := askListeners(socks); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("proc", func(b *testing.B) {
		for b.Loop() {
			readListeners(socks)
		}
	})
}
