package supervisor

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Both ways to the sockets that a process listens on agree, and see no connection.
func TestListeners(t *testing.T) {
	var want []string
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		network := "tcp4"
		if at[0] == '[' {
			network = "tcp6"
		}
		ln, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		want = append(want, ln.Addr().String())
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var got []string
	socks := map[uint64]bool{}
	for _, l := range listeners([]int{os.Getpid()}) {
		got, socks[l.inode] = append(got, l.addr.String()), true
	}
	if d := cmp.Diff(want, got); d != "" {
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
