// Package review makes a draft review of what is in a work tree: on a branch, pushed, open on the forge with template, ticket and
// reviewers. Plan looks, and changes nothing; Create does what a person has agreed to of it, and no more.
//
// git is the installed one, with the user's hooks, signing, configuration and credentials. Nothing is forced, rewritten, stashed or
// checked out: a new branch begins at HEAD, a commit takes the files that were agreed to, a push only adds. It must not know the
// editor or the agent; what the agent knows of the environment is told to it.
package review
