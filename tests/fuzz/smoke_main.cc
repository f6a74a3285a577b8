// Runs a fuzz target without libFuzzer: over a corpus and over mutations of it
// that are the same in every run.
//
//   fuzz_NAME_smoke CORPUS_DIRECTORY MUTATIONS [SEED]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/io.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr size_t kMaxInputBytes = 1 << 20;

using Random = std::mt19937;

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                         input.size());
}

// One change of the kinds that break parsers: bytes, cuts, repeats, pieces of
// other inputs.
void Mutate(const std::vector<std::string>& corpus, Random* random,
            std::string* input) {
  constexpr std::string_view kTelling("\"\\[](),:\n \0/.-=\xff", 16);
  const auto below = [random](size_t limit) {
    return limit == 0 ? 0 : (*random)() % limit;
  };
  const size_t at = below(input->size() + 1);
  const size_t length = below(std::min<size_t>(input->size() - at, 40) + 1);
  switch (below(6)) {
    case 0:
      input->insert(at, 1, kTelling[below(kTelling.size())]);
      break;
    case 1:
      if (at < input->size()) (*input)[at] = static_cast<char>((*random)());
      break;
    case 2:
      input->erase(at, length);
      break;
    case 3:
      input->resize(at);
      break;
    case 4:
      input->insert(at, input->substr(at, length));
      break;
    default: {
      const std::string& other = corpus[below(corpus.size())];
      const size_t from = below(other.size());
      input->insert(at, other.substr(from, below(200)));
    }
  }
}

std::vector<std::string> ReadCorpus(const std::string& directory) {
  std::vector<std::string> corpus;
  const std::string prefix = directory + "/";
  const auto names = nixq::ListDirectory(directory, 10000);
  if (!names.ok()) return corpus;
  for (const std::string& name : *names) {
    auto contents = nixq::ReadFile(prefix + name, kMaxInputBytes);
    if (contents.ok()) corpus.push_back(*std::move(contents));
  }
  return corpus;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s CORPUS MUTATIONS [SEED]\n", argv[0]);
    return 2;
  }
  const std::vector<std::string> corpus = ReadCorpus(argv[1]);
  const int mutations = std::atoi(argv[2]);
  const unsigned seed = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1;
  if (corpus.empty() || mutations <= 0) {
    std::fprintf(stderr, "%s: no corpus, or nothing to do\n", argv[1]);
    return 2;
  }
  std::printf("%zu inputs, %d mutations, seed %u\n", corpus.size(), mutations,
              seed);
  std::fflush(stdout);
  Run("");
  for (const std::string& input : corpus) Run(input);
  Random random(seed);
  for (int i = 0; i < mutations; ++i) {
    std::string input = corpus[random() % corpus.size()];
    for (size_t steps = 1 + random() % 4; steps > 0; --steps) {
      Mutate(corpus, &random, &input);
    }
    Run(input);
  }
  return 0;
}
