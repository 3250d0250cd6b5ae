package machine

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Link is the network device that carries the cluster's own address.
//
// It is a bridge without ports, only because every kernel that runs containers
// has bridges, which is not so of dummy devices. Pods do not hang on it: each
// has a point-to-point link to the machine, so that all traffic between pods
// is routed and what kube-proxy rewrote on the way in is put back on the way
// out. On a shared bridge an answer goes from pod to pod beside the rewriting,
// unless br_netfilter is loaded, which is not the cluster's to decide.
type Link struct {
	Name string
	// Address is the node's, the DNS server's and the pods' gateway.
	Address string
	// Services is routed to the link, so that connections from the machine to
	// a service have a route even on a machine that has no other.
	Services string
}

// Owner returns the state folder of the cluster whose link is there; ok is
// false when there is none.
func (l Link) Owner() (dir string, ok bool) {
	alias, err := os.ReadFile("/sys/class/net/" + l.Name + "/ifalias")
	if err != nil {
		return "", false
	}
	return strings.TrimSuffix(string(alias), "\n"), true
}

// Create makes the link in the name of the cluster in dir.
func (l Link) Create(ctx context.Context, dir string) error {
	for _, args := range [][]string{
		{"link", "add", "name", l.Name, "type", "bridge"},
		{"link", "set", "dev", l.Name, "alias", dir},
		{"address", "add", l.Address + "/32", "dev", l.Name},
		{"link", "set", "dev", l.Name, "up"},
		{"route", "add", l.Services, "dev", l.Name, "src", l.Address},
	} {
		if _, err := run(ctx, "ip", args...); err != nil {
			return fmt.Errorf("make the cluster's link: %w", err)
		}
	}
	return nil
}

// Delete deletes the link and with it the route, if they are there.
func (l Link) Delete(ctx context.Context) error {
	if _, ok := l.Owner(); !ok {
		return nil
	}
	if _, err := run(ctx, "ip", "link", "delete", "dev", l.Name); err != nil {
		return fmt.Errorf("delete the cluster's link: %w", err)
	}
	return nil
}

// proxyTables are those of kube-proxy in its nftables mode.
var proxyTables = [...]string{"ip kube-proxy", "ip6 kube-proxy"}

// ProxyTables returns which of kube-proxy's tables are there.
func ProxyTables(ctx context.Context) ([]string, error) {
	all, err := run(ctx, "nft", "list", "tables")
	if err != nil {
		return nil, fmt.Errorf("list packet filter tables: %w", err)
	}
	var found []string
	for _, t := range proxyTables {
		for line := range strings.Lines(all) {
			if strings.TrimSpace(line) == "table "+t {
				found = append(found, t)
			}
		}
	}
	return found, nil
}

// DeleteProxyTables deletes kube-proxy's tables.
func DeleteProxyTables(ctx context.Context) error {
	if Find("nft") == "" {
		return nil // then nothing was ever made with it
	}
	tables, err := ProxyTables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := run(ctx, "nft", append([]string{"delete", "table"}, strings.Fields(t)...)...); err != nil {
			return fmt.Errorf("delete packet filter table: %w", err)
		}
	}
	return nil
}

// Firewall is the pair of rules that let pods reach each other and the machine
// where a firewall drops by default: Docker sets the policy of FORWARD so, and
// ufw that of INPUT.
type Firewall struct {
	// Pods is the pods' network, Comment marks the rules.
	Pods, Comment string
}

func (f Firewall) rules() [][]string {
	mark := []string{"-m", "comment", "--comment", f.Comment, "-j", "ACCEPT"}
	return [][]string{
		append([]string{"FORWARD", "-s", f.Pods, "-d", f.Pods}, mark...),
		append([]string{"INPUT", "-s", f.Pods}, mark...),
	}
}

// Open adds the rules whose chain drops by default.
func (f Firewall) Open(ctx context.Context) error {
	if Find("iptables") == "" {
		return nil
	}
	for _, rule := range f.rules() {
		chain, err := run(ctx, "iptables", "-w", "-S", rule[0])
		if err != nil {
			return fmt.Errorf("read the firewall: %w", err)
		}
		if !strings.HasPrefix(chain, "-P "+rule[0]+" DROP\n") {
			continue
		}
		if _, err := run(ctx, "iptables", append([]string{"-w", "-I"}, rule...)...); err != nil {
			return fmt.Errorf("open the firewall: %w", err)
		}
	}
	return nil
}

// Close removes the rules.
func (f Firewall) Close(ctx context.Context) error {
	if Find("iptables") == "" {
		return nil
	}
	for _, rule := range f.rules() {
		for {
			if _, err := run(ctx, "iptables", append([]string{"-w", "-C"}, rule...)...); err != nil {
				break // not there; a machine without iptables in the kernel lands here too
			}
			if _, err := run(ctx, "iptables", append([]string{"-w", "-D"}, rule...)...); err != nil {
				return fmt.Errorf("close the firewall: %w", err)
			}
		}
	}
	return nil
}
