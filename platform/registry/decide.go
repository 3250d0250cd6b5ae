package registry

import "slices"

// Decision is whether a change is reviewed, and the rule that says so.
type Decision struct {
	Review bool
	Why    string
}

// Decide is the policy: what becomes of a request that caller may call callee, made by the person with an e-mail address. The
// first rule that asks for a review decides; where none does, the change is made at once.
//
//	the callee's file cannot be read          review: what it says of access is not known
//	the callee has access: review             review, by its owners
//	the caller's team's file cannot be read   review
//	the caller's team has changes: review     review, by that team
//	the team names members, and not the author   review, by that team
//
// A callee without a file is not governed, and whoever asks may write down that it is called. A team without a file has the
// defaults of one that says nothing.
func Decide(s *Snapshot, caller, callee, email string) Decision {
	from, to := s.Services[caller], s.Services[callee]
	open := callee + " is open to everyone"
	switch {
	case s.broken[servicePath(callee)]:
		return Decision{true, servicePath(callee) + " cannot be read, so what it says of access is not known"}
	case to == nil:
		open = callee + " is not in the registry, so nobody reviews its callers"
	case to.Access == AccessReview && to.Team != "":
		return Decision{true, callee + " is reviewed by its owners, team " + to.Team}
	case to.Access == AccessReview:
		return Decision{true, callee + " is reviewed by its owners"}
	}
	if from == nil || from.Team == "" {
		return Decision{false, open + "; " + caller + " has no team that reviews its changes"}
	}
	team := s.Teams[from.Team]
	switch {
	case s.broken[teamPath(from.Team)]:
		return Decision{true, teamPath(from.Team) + " cannot be read, so what it says of changes is not known"}
	case team == nil:
		return Decision{false, open + "; team " + from.Team + " has no file that asks for a review"}
	case team.Changes == ChangesReview:
		return Decision{true, "team " + team.Name + " reviews changes of its files"}
	case len(team.Members) > 0 && !slices.ContainsFunc(team.Members, func(m string) bool { return sameEmail(m, email) }):
		return Decision{true, email + " is not a member of team " + team.Name}
	}
	return Decision{false, open + "; team " + team.Name + " changes its files directly"}
}
