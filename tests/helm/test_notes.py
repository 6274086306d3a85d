from tests.helm.chart import notes


def test_they_name_the_objects_of_this_release():
    text = notes({})

    assert "deployment/phone-autoglm-phone-triton" in text
    assert "service/phone-autoglm-phone-gateway" in text


def test_they_say_that_nobody_is_asked_for_a_key():
    assert "Everybody who reaches the gateway" in notes({})
    assert "Everybody who reaches the gateway" not in notes({"gateway": {"apiKeys": {"existingSecret": "keys"}}})


def test_they_say_when_gateways_send_more_than_triton_takes():
    assert "4 gateways may send 512 requests at once, and 1 Triton pods take 256" in notes({"gateway": {"replicas": 4}})
    assert "may send" not in notes({"gateway": {"replicas": 2}})
