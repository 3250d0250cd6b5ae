package api

// ReviewPlan is what a draft review of a workspace's change would be, for a person to look at: nothing has been changed for it.
type ReviewPlan struct {
	Dir string `json:"dir"` // the work tree's top
	// State stands for what was looked at. A request with another one's is refused: something has changed since.
	State string `json:"state"`
	// Branch is where the change is, or (New) will be put: a name that is free. Where it is made of the proposed message, another
	// message gives another name.
	Branch string `json:"branch"`
	New    bool   `json:"new,omitempty"`
	Base   string `json:"base"`             // the branch that it is for
	Forge  string `json:"forge"`            // for a person: "Gitea (team/shop)"
	Remote string `json:"remote"`           // that is pushed to
	Commit string `json:"commit"`           // HEAD
	Behind int    `json:"behind,omitempty"` // commits of the base that the branch lacks, as far as they are known here
	// Commits are those to be reviewed, the oldest first; Unpushed are how many of them the remote's branch lacks.
	Commits  []ReviewCommit `json:"commits"`
	Unpushed int            `json:"unpushed"`
	// Changes are what is not committed. Message is what a commit of those that are picked could say.
	Changes []ReviewChange `json:"changes,omitempty"`
	Message string         `json:"message,omitempty"`
	Title   string         `json:"title"`
	Body    string         `json:"body"`
	// Template is the file that the body was made of; Templates are all that there are.
	Template  string        `json:"template,omitempty"`
	Templates []string      `json:"templates,omitempty"`
	Ticket    *ReviewTicket `json:"ticket,omitempty"`
	// Reviewers are suggestions, those that must be asked first. Nobody is asked who is not in the request.
	Reviewers []ReviewPerson `json:"reviewers"`
	Teams     []ReviewTeam   `json:"teams,omitempty"`
	Existing  *ReviewRef     `json:"existing,omitempty"` // the open review of the branch, which is updated
	// Notes say, for a person, what could not be found or is not as it could be.
	Notes []string `json:"notes,omitempty"`
}

// ReviewCommit is one commit.
type ReviewCommit struct {
	Hash    string `json:"hash"`
	Subject string `json:"subject"`
}

// ReviewChange is a file that is not committed as it is.
type ReviewChange struct {
	Path string `json:"path"`
	// Kind is "modified", "added", "deleted", "renamed", "untracked" or "submodule" (whose own work tree has changes, which no
	// commit here takes).
	Kind   string `json:"kind"`
	Staged bool   `json:"staged,omitempty"`
	// Picked is what a person is offered at first: what they have staged, or else what git knows already.
	Picked bool `json:"picked,omitempty"`
}

// ReviewTicket is what the change is for.
type ReviewTicket struct {
	Key  string `json:"key"` // "SHOP-12" or "#12"
	URL  string `json:"url,omitempty"`
	From string `json:"from"` // where it was found: "the branch's name"
}

// ReviewPerson is who could review.
type ReviewPerson struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	// Login is by which the forge asks them; empty: it does not know them, or was not asked.
	Login    string `json:"login,omitempty"`
	Why      string `json:"why"`
	Required bool   `json:"required,omitempty"` // by CODEOWNERS
	Asked    bool   `json:"asked,omitempty"`    // already
}

// ReviewTeam is a team that must be asked.
type ReviewTeam struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// ReviewRef is a review on its forge.
type ReviewRef struct {
	Number int    `json:"number,omitempty"`
	URL    string `json:"url"`
	Title  string `json:"title"`
	Draft  bool   `json:"draft,omitempty"`
	Branch string `json:"branch,omitempty"`
}

// ReviewRequest is what a person has agreed to.
type ReviewRequest struct {
	Dir   string `json:"dir"`
	State string `json:"state"` // of the plan that they saw
	// Files are to be committed with Message: those changes and no others. None: nothing is.
	Files     []string `json:"files,omitempty"`
	Message   string   `json:"message,omitempty"`
	Branch    string   `json:"branch,omitempty"` // in place of the plan's, where that is new
	Base      string   `json:"base,omitempty"`
	Title     string   `json:"title,omitempty"`
	Body      *string  `json:"body,omitempty"`
	Template  string   `json:"template,omitempty"`
	Ticket    string   `json:"ticket,omitempty"`
	Reviewers []string `json:"reviewers,omitempty"` // logins, or addresses on Gerrit
	Teams     []string `json:"teams,omitempty"`
}

// ReviewResult is what came of it.
type ReviewResult struct {
	ReviewRef
	Made    bool   `json:"made"`              // false: it was there, and was updated
	Commit  string `json:"commit,omitempty"`  // that was made for it
	Pushed  int    `json:"pushed"`            // commits
	Compare bool   `json:"compare,omitempty"` // URL is the page where the review is opened by hand
	// Asked are who was asked for a review; Notes what did not work, or is left to do.
	Asked []string `json:"asked,omitempty"`
	Notes []string `json:"notes,omitempty"`
}
