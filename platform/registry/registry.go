package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Options say where a registry is.
type Options struct {
	// Dir is a folder of this user's alone: the clone is in it, and the embedded default. Processes may share it.
	Dir string
	// Remote is a git URL or an absolute path. Empty means the embedded default, a bare repository below Dir.
	Remote string
	// Branch is the one that is in force. Empty means the remote's own default.
	Branch string
	// Reviewer opens reviews; nil where the remote is plain git: a review is its branch then.
	Reviewer Reviewer
	// Committer is who commits; the author is who asked. Empty means Fairlead.
	Committer Author
	// Poll is how often the remote is asked for a change while nobody expects one. 0 means ten seconds, or a quarter of one where the
	// remote is on this machine.
	Poll time.Duration
}

// Reviewer is the forge that the remote is on.
type Reviewer interface {
	// Draft opens a draft review of a branch, or returns the one that it has: an open one, or one of this very commit.
	Draft(context.Context, Review) (url string, err error)
	// Pending says whether a review of the branch is open.
	Pending(ctx context.Context, branch string) (bool, error)
}

// Review is what is to be reviewed.
type Review struct {
	Branch, Base string
	Head         string // the branch's commit
	Title, Body  string
}

// Registry is a registry that is open. It has no goroutine of its own, and nothing to close.
type Registry struct {
	opts      Options
	git       git
	embedded  bool
	committer Author

	submitting chan struct{} // one at a time: they would only make each other's pushes fail

	mu       sync.Mutex
	last     *Snapshot
	changed  chan struct{} // closed when last is replaced
	expected time.Time     // until when a change is expected
	hurry    chan struct{} // closed when that is told

	beforePush func() // a test's
}

// EmbeddedName is the embedded default's folder below Options.Dir; it is there once something has opened that.
const EmbeddedName = "registry.git"

// How ephemeral environments of a caller have what it calls (Grant.Environments).
const (
	EnvironmentsShared = "shared"
	EnvironmentsFresh  = "fresh"
)

// DefaultBranch is the branch of a registry that has none yet.
const DefaultBranch = "main"

const (
	pollRemote   = 10 * time.Second
	pollExpected = 500 * time.Millisecond
	pollLocal    = 250 * time.Millisecond
)

// Open opens a registry; the embedded default is made where it is not there yet. It does not ask the remote.
func Open(ctx context.Context, opts Options) (*Registry, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, noGit(err)
	}
	if !filepath.IsAbs(opts.Dir) {
		return nil, &api.Problem{Code: "registry-folder", Message: "the registry's folder is not an absolute path: " + strconv.Quote(opts.Dir), Hint: "name it from the root"}
	}
	r := &Registry{opts: opts, embedded: opts.Remote == "", committer: opts.Committer, submitting: make(chan struct{}, 1), changed: make(chan struct{}), hurry: make(chan struct{})}
	if r.committer == (Author{}) {
		r.committer = Author{Name: "Fairlead", Email: "noreply@fairlead.dev"}
	}
	if p := checkAuthor(r.committer); p != nil {
		return nil, p
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, folderProblem(err)
	}
	r.git.remote = opts.Remote
	if r.embedded {
		r.git.remote = filepath.Join(opts.Dir, EmbeddedName)
		if err := initBare(ctx, r.git.remote); err != nil {
			return nil, err
		}
	} else if p := CheckRemote(opts.Remote); p != nil {
		return nil, p
	}
	if opts.Branch != "" {
		if _, err := r.git.run(ctx, nil, nil, "check-ref-format", "--branch", opts.Branch); err != nil || strings.HasPrefix(opts.Branch, "-") {
			return nil, &api.Problem{Code: "registry-branch", Message: strconv.Quote(short(opts.Branch)) + " is not the name of a branch", Hint: "write it as " + DefaultBranch}
		}
	}
	sum := sha256.Sum256([]byte(r.git.remote))
	r.git.dir = filepath.Join(opts.Dir, "clone-"+hex.EncodeToString(sum[:6])+".git")
	if err := initBare(ctx, r.git.dir); err != nil {
		return nil, err
	}
	// After thousands of changes, and not while one is made. It does that in the background; where it cannot, the clone is slower.
	_, _ = r.git.run(ctx, nil, nil, "-c", "gc.auto=6700", "gc", "--auto", "--quiet")
	return r, ctx.Err()
}

// initBare makes a bare repository under another name, and gives it its own when it is whole.
func initBare(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return folderProblem(err)
	}
	defer os.RemoveAll(temp) // after the rename there is nothing to remove
	g := git{dir: temp}
	// The empty template leaves the user's hooks out. Those of his core.hooksPath would run at a push into it, since the receiving
	// process gets none of our settings.
	if _, err := g.run(ctx, nil, nil, "init", "--quiet", "--bare", "--template=", "--initial-branch="+DefaultBranch); err != nil {
		return folderProblem(err)
	}
	if _, err := g.run(ctx, nil, nil, "config", "core.hooksPath", os.DevNull); err != nil {
		return folderProblem(err)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return nil // another process was faster
		}
		return folderProblem(err)
	}
	return nil
}

func folderProblem(err error) error {
	return &api.Problem{Code: "registry-folder", Message: "make the registry's folder: " + err.Error(), Hint: "make it possible to write there"}
}

// Where is the remote, for a person.
func (r *Registry) Where() string { return r.git.remote }

// Embedded says whether it is the default on this machine.
func (r *Registry) Embedded() bool { return r.embedded }

// Last is the last snapshot that this process knows, or nil.
func (r *Registry) Last() *Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// Snapshot asks the remote, and returns what the registry says now. Where the remote is away, it is the last that is known here, if
// there is one, together with the problem.
func (r *Registry) Snapshot(ctx context.Context) (*Snapshot, error) {
	for try := 0; ; try++ {
		t, err := r.tip(ctx, "")
		if err != nil {
			if last := r.Last(); last != nil {
				return last, err
			}
			return r.cached(context.WithoutCancel(ctx)), err
		}
		s, err := r.at(ctx, t)
		switch {
		case !errors.Is(err, errMoved):
			return s, err
		case try == 5:
			return s, &api.Problem{Code: "registry-busy", Message: "the registry's branch is replaced faster than it can be read", Hint: "see who pushes to it with --force"}
		}
		if err := pause(ctx, try); err != nil {
			return s, err
		}
	}
}

// cached is what was fetched by an earlier process, or nil. Its own failure is of no interest: the remote's is told.
func (r *Registry) cached(ctx context.Context) *Snapshot {
	rev, err := r.git.line(ctx, nil, nil, "rev-parse", "--verify", "--quiet", inForce)
	if err != nil {
		return nil
	}
	s, err := r.load(ctx, rev, nil)
	if err != nil {
		return nil
	}
	r.replace(s)
	return s
}

func (r *Registry) replace(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = s
	close(r.changed)
	r.changed = make(chan struct{})
}

// inForce is the clone's name for the branch that is in force, whatever its own.
const inForce = "refs/fairlead/in-force"

// tips are what the remote has now.
type tips struct {
	branch string // that is in force
	rev    string // its commit; empty where there is none yet
	review string // the commit of the branch that was asked for beside it
}

// tip asks the remote for the branch that is in force and, if not "", the commit of another.
func (r *Registry) tip(ctx context.Context, review string) (tips, error) {
	t := tips{branch: r.opts.Branch}
	args := []string{"ls-remote", "--symref", "--", r.git.remote, "HEAD", "refs/heads/" + cmp.Or(t.branch, DefaultBranch)}
	if review != "" {
		args = append(args, "refs/heads/"+review)
	}
	out, err := r.git.network(ctx, args...)
	if err != nil {
		return t, err
	}
	refs, head := map[string]string{}, ""
	for l := range strings.Lines(string(out)) {
		v, name, _ := strings.Cut(strings.TrimSpace(l), "\t")
		if target, ok := strings.CutPrefix(v, "ref: refs/heads/"); ok && name == "HEAD" {
			head = target
		} else if isObject(v) {
			refs[name] = v
		}
	}
	switch {
	case t.branch == "" && head != "":
		t.branch, t.rev = head, refs["HEAD"]
	default: // without a HEAD nothing was pushed yet, or it leads nowhere
		t.branch = cmp.Or(t.branch, DefaultBranch)
		t.rev = refs["refs/heads/"+t.branch]
	}
	t.review = refs["refs/heads/"+review]
	return t, nil
}

// isObject says whether it is the name of an object, by SHA-1 or SHA-256.
func isObject(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// have brings a commit of the remote's branch here, if it is not here yet.
func (r *Registry) have(ctx context.Context, rev, branch, as string) error {
	return r.locked(ctx, func() error {
		// A ref is not written to what is not here.
		_, err := r.git.run(ctx, nil, nil, "update-ref", as, rev)
		if err == nil || strings.Contains(err.Error(), lockedRef) {
			return err
		}
		if _, err = r.git.network(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--", r.git.remote, "+refs/heads/"+branch+":"+as); err != nil {
			return err
		}
		if _, err := r.git.run(ctx, nil, nil, "cat-file", "-e", rev+"^{commit}"); err != nil {
			return errMoved // somebody has replaced the branch since it was asked for
		}
		return nil
	})
}

// lockedRef is what git says where another process writes the same ref.
const lockedRef = "cannot lock ref"

// locked does something that writes a ref of the clone, which another process may be writing too.
func (r *Registry) locked(ctx context.Context, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil || try >= 8 || !strings.Contains(err.Error(), lockedRef) {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// at is the snapshot of what the remote has.
func (r *Registry) at(ctx context.Context, t tips) (*Snapshot, error) {
	last := r.Last()
	if last != nil && last.Revision == t.rev {
		return last, nil
	}
	if t.rev != "" {
		if err := r.have(ctx, t.rev, t.branch, inForce); err != nil {
			return last, err
		}
	}
	s, err := r.load(ctx, t.rev, last)
	if err != nil {
		return last, err
	}
	r.replace(s)
	return s, nil
}

// load reads a commit that is here; what last has already is not read again.
func (r *Registry) load(ctx context.Context, rev string, last *Snapshot) (*Snapshot, error) {
	if rev == "" {
		return newSnapshot(nil, nil, nil), nil
	}
	out, err := r.git.run(ctx, nil, nil, "ls-tree", "-z", "-l", rev, "--", services, teams)
	if err != nil {
		return nil, readProblem(err)
	}
	var entries []entry
	var wanted bytes.Buffer
	wanted.WriteString(rev + "\n")
	content := map[string][]byte{}
	for l := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		meta, path, ok := strings.Cut(l, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 4 {
			continue // the empty tree
		}
		e := entry{mode: f[0], blob: f[2], path: path}
		if entries = append(entries, e); len(entries) > maxFiles {
			return nil, &api.Problem{Code: "registry-too-large", Message: fmt.Sprintf("the registry has more than %d files", maxFiles), Hint: "remove those of services that are gone"}
		}
		if last != nil && last.files[path].blob == e.blob || f[1] != "blob" {
			continue
		}
		if size, err := strconv.Atoi(f[3]); err != nil || size > maxFile {
			content[e.blob] = make([]byte, maxFile+1) // the parser says that it is too large
			continue
		}
		if _, twice := content[e.blob]; !twice {
			content[e.blob] = nil
			wanted.WriteString(e.blob + "\n")
		}
	}
	if err := r.objects(ctx, wanted.Bytes(), content); err != nil {
		return nil, err
	}
	s := newSnapshot(entries, last, content)
	s.Revision = rev
	m := committed.FindSubmatch(content[rev])
	if m == nil {
		return nil, readProblem(fmt.Errorf("%s is not a commit", rev))
	}
	secs, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return nil, readProblem(err)
	}
	s.Time = time.Unix(secs, 0)
	return s, nil
}

// committed is the line of a commit that has its time.
var committed = regexp.MustCompile(`(?m)^committer .*> ([0-9]+) [-+][0-9]{4}$`)

// objects reads objects in one go.
func (r *Registry) objects(ctx context.Context, names []byte, into map[string][]byte) error {
	out, err := r.git.run(ctx, names, nil, "cat-file", "--batch")
	if err != nil {
		return readProblem(err)
	}
	for len(out) > 0 {
		head, rest, ok := bytes.Cut(out, []byte("\n"))
		f := strings.Fields(string(head))
		if !ok || len(f) != 3 {
			return readProblem(fmt.Errorf("cat-file said %q", head))
		}
		size, err := strconv.Atoi(f[2])
		if err != nil || size+1 > len(rest) {
			return readProblem(fmt.Errorf("cat-file said %q", head))
		}
		into[f[0]], out = rest[:size:size], rest[size+1:]
	}
	return nil
}

// readProblem is the clone's: it is only a copy.
func readProblem(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &api.Problem{Code: "registry-clone", Message: "read the registry: " + err.Error(), Hint: "if it stays so, remove the folder clone-* beside the embedded registry; it is a copy and is made again"}
}

// pause waits a moment that is longer, and less predictable, at each try.
func pause(ctx context.Context, try int) error {
	most := min(4*time.Second, 150*time.Millisecond<<min(try, 10))
	t := time.NewTimer(time.Millisecond + rand.N(most))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
