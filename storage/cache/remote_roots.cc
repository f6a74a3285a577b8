#include "storage/cache/remote_roots.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "storage/base/text.h"

namespace nixq {
namespace {

// Before every line of an answer: a login script may print, too.
constexpr std::string_view kAnswer = "nixq-roots ";
constexpr size_t kPathsPerLine = 100;

// Goes into the roots directory and then into our own in it. `pwd -P` after
// `cd` tells where it really went, whatever was changed in between.
constexpr std::string_view kEnter = R"sh(
say() { echo "nixq-roots $*"; }
enter_one() {
  if [ -L "$2" ]; then say symlink; return 1; fi
  if [ ! -e "$2" ] && [ "$1" = create ]; then
    mkdir -p "$2" || { say denied; return 1; }
  fi
  if [ ! -e "$2" ]; then say done 0; return 1; fi
  if [ ! -d "$2" ]; then say notdir; return 1; fi
  parent=$(cd -P "${2%/*}/" && pwd -P) || { say denied; return 1; }
  cd -P "$2" || { say denied; return 1; }
  if [ "$(pwd -P)" != "${parent%/}/${2##*/}" ]; then
    say symlink; return 1
  fi
}
enter() { enter_one "$1" "$dir" && enter_one "$1" "./$sender"; }
)sh";

// New links appear whole, and `touch -h` renews an old one in place. Where it
// cannot, a temporary link is renamed over the old one.
constexpr std::string_view kPin = R"sh(
renew() {
  if ln -s "$store/$1" ".$$.$1"; then
    mv -fT ".$$.$1" "$1" || mv -fh ".$$.$1" "$1" || {
      rm -f ".$$.$1"; ln -sfn "$store/$1" "$1"
    }
  fi
}
pin() {
  new=; old=
  for name do
    if [ ! -L "$name" ]; then
      if [ -e "$name" ]; then say taken "$name"; else new="$new $name"; fi
    elif [ "$(readlink "$name")" = "$store/$name" ]; then
      old="$old $name"
    else
      rm -f "$name"; new="$new $name"
    fi
  done
  if [ -n "$new" ]; then
    links=
    for name in $new; do links="$links $store/$name"; done
    ln -s $links . || for name in $new; do
      [ "$(readlink "$name")" = "$store/$name" ] || { say denied; return 1; }
    done
  fi
  if [ -n "$old" ]; then
    touch -h -c $old 2>/dev/null || for name in $old; do
      renew "$name" 2>/dev/null || { say denied; return 1; }
    done
  fi
}
)sh";

constexpr std::string_view kPrune = R"sh(
prune() {
  { find . -maxdepth 1 -type l -mmin "+$1" || echo failed; } | {
    removed=0; refused=
    while IFS= read -r link; do
      case $link in
        ./?*) ;;
        failed) say failed; return 0 ;;
        *) continue ;;
      esac
      [ -L "$link" ] || continue
      target=$(readlink "$link") || continue
      case $target in
        "$store"/*/*) ;;
        "$store"/[0-9a-z]*-?*)
          if rm -f "$link"; then removed=$((removed + 1)); else refused=1; fi
          ;;
      esac
    done
    if [ -n "$refused" ]; then say denied; else say done "$removed"; fi
  }
}
)sh";

std::string ShellQuoted(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

// Functions are only defined until the last line, so all or nothing runs.
// Word splitting is wanted in them, globbing never is.
std::string Script(const RemoteRoots& roots, std::string_view functions,
                   std::string_view body) {
  return absl::StrFormat(
      "set -uf\numask 022\nLC_ALL=C\nexport LC_ALL\n"
      "dir=%s\nsender=%s\nstore=%s\n%s%s"
      "main() {\n%s}\nmain </dev/null\n",
      ShellQuoted(roots.directory), ShellQuoted(roots.sender),
      ShellQuoted(roots.store_dir.path()), std::string(kEnter),
      std::string(functions), std::string(body));
}

absl::Status Denied(const RemoteRoots& roots, std::string_view why) {
  return absl::PermissionDeniedError(absl::StrFormat(
      "cannot keep GC roots in %s on the receiving machine: %s",
      Printable(roots.directory + "/" + roots.sender), std::string(why)));
}

}  // namespace

std::string PinScript(const RemoteRoots& roots,
                      const std::vector<StorePath>& paths) {
  std::string body = "enter create || return 0\n";
  for (size_t i = 0; i < paths.size(); ++i) {
    if (i % kPathsPerLine == 0) {
      body += i == 0 ? "pin" : " || return 0\npin";
    }
    body += " " + paths[i].base_name();
  }
  // Without a path it still tells whether roots can be made.
  body += paths.empty() ? "[ -w . ] || { say denied; return 0; }\n"
                        : " || return 0\n";
  return Script(roots, kPin, body + "say done 0\n");
}

std::string PruneScript(const RemoteRoots& roots, absl::Duration max_age) {
  const absl::Duration bounded =
      std::clamp(max_age, absl::ZeroDuration(), absl::Hours(24 * 36500));
  const int64_t minutes =
      absl::ToInt64Minutes(absl::Ceil(bounded, absl::Minutes(1)));
  return Script(roots, kPrune,
                absl::StrFormat("enter keep || return 0\nprune %d\n", minutes));
}

absl::StatusOr<RootsAnswer> ParseRootsAnswer(std::string_view output,
                                             const RemoteRoots& roots) {
  RootsAnswer answer;
  for (const std::string& line : Split(output, '\n')) {
    if (!line.starts_with(kAnswer)) continue;
    const std::vector<std::string_view> words =
        SplitWords(std::string_view(line).substr(kAnswer.size()));
    if (words.empty()) continue;
    if (words[0] == "symlink") {
      return Denied(roots, "it is a symlink; name the directory itself");
    }
    if (words[0] == "notdir") return Denied(roots, "it is not a directory");
    if (words[0] == "denied") {
      return Denied(roots,
                    "not permitted; make it there and give it to the account "
                    "that we log in to, or set pin-remote = false");
    }
    if (words[0] == "failed") {
      return absl::UnknownError("find does not work on the other machine");
    }
    if (words[0] == "taken" && words.size() == 2) {
      answer.taken.emplace_back(words[1]);
    }
    if (words[0] == "done" && words.size() == 2) {
      answer.count = static_cast<int>(ParseUint(words[1]).value_or(0));
      return answer;
    }
  }
  return absl::UnknownError("no answer to the script for GC roots");
}

}  // namespace nixq
