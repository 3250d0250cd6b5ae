package reviewer

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// identity is a name and an address as a commit has them.
type identity struct{ name, email string }

// record is one commit as git told it.
type record struct {
	hash     id
	parents  []id
	time     int64
	authors  []identity // the first is the commit's, the others Co-authored-by
	reviewed []identity // by trailers
	landed   identity   // who committed it
	merge    bool       // of a pull or merge request
	files    []string
	moved    []move
}

// move is a file that got another name.
type move struct{ from, to string }

// id begins a commit's hash. 64 bits are enough for one repository's history: 10^6 commits share one by a chance of 10^-8.
type id uint64

// logFormat ends each field with NUL, which none can contain. Mailmap is applied when the index is read, not here.
const logFormat = "%x00%H%x00%P%x00%ct%x00%an%x00%ae%x00%cn%x00%ce%x00%s%x00%(trailers:only,unfold)%x00"

// logArgs are for git diff-tree, which unlike git log heeds no setting of the user's. Renames are found where the content is
// the same, since others would need to read it; a merge is compared with the branch that it went into.
var logArgs = []string{"diff-tree", "--stdin", "-r", "-z", "--root", "--always", "-M100%", "-l0", "--name-status", "--diff-merges=first-parent",
	"--encoding=UTF-8", "--format=" + logFormat}

// maxFiles is how many files a change has at most that says something about who knows them: more is a move of everything, a
// vendored tree, new licence headers.
const maxFiles = 300

var errLog = errors.New("git's log is not as expected")

// readLog reads what git diff-tree prints with logArgs, and gives each commit to got.
func readLog(r io.Reader, got func(record) error) error {
	br := bufio.NewReaderSize(r, 1<<18)
	token := func() (string, error) {
		var long []byte
		for {
			part, err := br.ReadSlice(0)
			switch {
			case err == nil && long == nil:
				return string(part[:len(part)-1]), nil
			case err == nil:
				return string(append(long, part[:len(part)-1]...)), nil
			case errors.Is(err, bufio.ErrBufferFull):
				if long = append(long, part...); len(long) > 64<<20 {
					return "", fmt.Errorf("%w: a field of %d bytes", errLog, len(long))
				}
			case errors.Is(err, io.EOF) && len(part)+len(long) > 0:
				return "", fmt.Errorf("%w: it ends within a field", errLog)
			default:
				return "", err
			}
		}
	}
	next, err := token() // the empty one that begins a commit
	for {
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if next != "" {
			return fmt.Errorf("%w: %.40q in place of a commit", errLog, next)
		}
		var f [9]string
		for i := range f {
			if f[i], err = token(); err != nil {
				return fmt.Errorf("%w: a commit of %d fields (%v)", errLog, i, err)
			}
		}
		c, err := parse(f)
		if err != nil {
			return err
		}
		if end, err := token(); err != nil || end != "" {
			return fmt.Errorf("%w: %.40q behind a commit (%v)", errLog, end, err)
		}
		next, err = files(token, &c)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last := err
		if err := got(c); err != nil {
			return err
		}
		if last != nil {
			return nil
		}
	}
}

// files reads a commit's files, and returns the token behind them.
func files(token func() (string, error), c *record) (string, error) {
	var added, deleted []string
	count := 0
	defer func() {
		if count > maxFiles {
			c.files, c.moved = nil, nil
			return
		}
		c.moved = append(c.moved, sameBase(deleted, added)...)
	}()
	for {
		status, err := token()
		if err != nil {
			return "", err
		}
		if status == "" {
			return "", nil
		}
		status = strings.TrimPrefix(status, "\n")
		names := 1
		if status != "" && (status[0] == 'R' || status[0] == 'C') {
			names = 2
		}
		if status == "" || len(status) > 4 {
			return "", fmt.Errorf("%w: %.40q in place of a file's status", errLog, status)
		}
		var name [2]string
		for i := range names {
			if name[i], err = token(); err != nil || name[i] == "" {
				return "", fmt.Errorf("%w: a file without a name (%v)", errLog, err)
			}
		}
		if count++; count > maxFiles {
			continue
		}
		c.files = append(c.files, name[names-1])
		switch status[0] {
		case 'R':
			c.moved = append(c.moved, move{name[0], name[1]})
		case 'A':
			added = append(added, name[0])
		case 'D':
			deleted = append(deleted, name[0])
		}
	}
}

// sameBase pairs files that went with those that came by their base names: a file that was moved and edited at once. Only
// where there is one of each, and not for names that every folder has.
func sameBase(deleted, added []string) []move {
	if len(deleted) == 0 || len(added) == 0 {
		return nil
	}
	to := map[string][]string{}
	for _, a := range added {
		to[path.Base(a)] = append(to[path.Base(a)], a)
	}
	from := map[string]int{}
	for _, d := range deleted {
		from[path.Base(d)]++
	}
	var out []move
	for _, d := range deleted {
		if base := path.Base(d); from[base] == 1 && len(to[base]) == 1 {
			out = append(out, move{d, to[base][0]})
		}
	}
	return out
}

func parse(f [9]string) (record, error) {
	hash, parents, at, subject := f[0], f[1], f[2], f[7]
	c := record{authors: []identity{{clean(f[3]), clean(f[4])}}, landed: identity{clean(f[5]), clean(f[6])}}
	var err error
	if c.hash, err = parseID(hash); err != nil {
		return c, err
	}
	for p := range strings.FieldsSeq(parents) {
		i, err := parseID(p)
		if err != nil {
			return c, err
		}
		c.parents = append(c.parents, i)
	}
	if c.time, err = strconv.ParseInt(at, 10, 64); err != nil || c.time < 0 || c.time > math.MaxInt32*16 {
		c.time = 0 // git keeps a commit whose date is damaged; it is of long ago then
	}
	c.merge = len(c.parents) == 2 && isRequest(subject)
	for line := range strings.SplitSeq(f[8], "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch strings.ToLower(key) {
		case "reviewed-by", "approved-by", "acked-by":
			if who, ok := parseIdentity(value); ok {
				c.reviewed = append(c.reviewed, who)
			}
		case "co-authored-by":
			if who, ok := parseIdentity(value); ok {
				c.authors = append(c.authors, who)
			}
		}
	}
	return c, nil
}

// isRequest tells the merge commits that a forge makes of a request. Others bring a branch up to date, and who makes one has
// reviewed nothing.
func isRequest(subject string) bool {
	return strings.HasPrefix(subject, "Merge pull request ") || // GitHub, Gitea, Forgejo, Bitbucket Server
		strings.HasPrefix(subject, "Merged in ") || // Bitbucket
		strings.HasPrefix(subject, "Merge branch '") && strings.Contains(subject, "' into '") // GitLab; git itself quotes only the first
}

func parseID(hash string) (id, error) {
	var b [8]byte
	if len(hash) < 40 {
		return 0, fmt.Errorf("%w: %.80q in place of a commit's name", errLog, hash)
	}
	if _, err := hex.Decode(b[:], []byte(hash[:16])); err != nil {
		return 0, fmt.Errorf("%w: %.80q in place of a commit's name", errLog, hash)
	}
	var i id
	for _, c := range b {
		i = i<<8 | id(c)
	}
	return i, nil
}

// parseIdentity reads `Name <email>`, a name alone or an address alone. Text behind the address is left out.
func parseIdentity(s string) (identity, bool) {
	name, rest, ok := strings.Cut(s, "<")
	if !ok {
		if name = clean(name); strings.Contains(name, "@") && !strings.Contains(name, " ") {
			return identity{"", name}, true
		}
		return identity{name, ""}, name != ""
	}
	email, _, _ := strings.Cut(rest, ">")
	who := identity{clean(name), clean(email)}
	return who, who.name != "" || who.email != ""
}

// clean makes one line without control characters of what stood in a commit.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '<' || r == '>' {
			return -1
		}
		return r
	}, s))
}
