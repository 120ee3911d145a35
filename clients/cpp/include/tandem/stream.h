#pragma once

#include <iterator>
#include <memory>
#include <optional>

#include "tandem/v1/generation_service.pb.h"

namespace tandem {

// The events of a text as it is made: one `started`, any number of `delta`, one `finished`.
//
// Destroying it before the end cancels the work on the server within one round. One thread reads; any thread may
// cancel.
class Stream {
 public:
  struct Call;
  class Iterator;
  struct End {};

  explicit Stream(std::unique_ptr<Call> call);
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  // The next event, waited for; none after the last.
  // Throws Error: the call failed, or was cancelled (CANCELLED).
  std::optional<v1::StreamGenerateResponse> next();

  // Ends the call; whoever reads meets CANCELLED. Does nothing after the end.
  void cancel();

  // All events from the next one on; advancing throws as next() does.
  Iterator begin();
  End end() { return {}; }

 private:
  std::unique_ptr<Call> call_;
};

class Stream::Iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = v1::StreamGenerateResponse;
  using difference_type = std::ptrdiff_t;
  using pointer = const value_type*;
  using reference = const value_type&;

  explicit Iterator(Stream& stream) : stream_(&stream), event_(stream.next()) {}

  reference operator*() const { return *event_; }
  pointer operator->() const { return &*event_; }
  Iterator& operator++() {
    event_ = stream_->next();
    return *this;
  }
  void operator++(int) { ++*this; }
  bool operator!=(End) const { return event_.has_value(); }
  bool operator==(End) const { return !event_.has_value(); }

 private:
  Stream* stream_;
  std::optional<value_type> event_;
};

inline Stream::Iterator Stream::begin() { return Iterator(*this); }

}  // namespace tandem
