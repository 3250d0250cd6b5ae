// Package reviewer owns who should review a change, judged from git's history alone: who wrote and who reviewed the edited
// files and those beside them, how lately, and who has reviewed this author before. What a forge knows more (who can be
// assigned, is away, is busy) is told to it as plain values. It must not know forges, editors, or the session.
//
// # From a repository to names
//
//	Open -> index file (or git diff-tree, what is new since) -> History -> Rank -> Suggestions, the owners that must be asked
//
// A History is what Open read and is not changed afterwards, so any number of Ranks can run on it at once. The index holds
// facts (which commit, when, which files, which names); every judgement (who is one person, who is a program, what a review
// weighs) is made when it is read, so a better judgement needs no new index. It is the same bytes whether it was made at once
// or commit by commit: its order is git's corrected commit date, which no interleaving of branches changes.
//
// Only trees and commits are read, never the files' contents, so that a history of 50,000 commits takes seconds and a clone
// without blobs fetches none. Whose lines a change edits, Blame tells, in the time that it is given.
package reviewer
